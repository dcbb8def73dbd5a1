"""Prints one line per check as it ends and counts them."""
import threading
import time


class Report:
    def __init__(self):
        self.passed, self.failures, self.lock = 0, [], threading.Lock()

    def check(self, family, name, run):
        """Runs `run()`; whatever it raises is a failure of this check and of no other. Answers whether it passed."""
        began = time.monotonic()
        try:
            run()
        except Exception as error:  # a check may fail in any way; the next one must still run
            text = " ".join(f"{type(error).__name__}: {error}".split())
            with self.lock:
                self.failures.append(f"{family}: {name}")
                print(f"FAIL {family}: {name}: {text[:1000]}", flush=True)
            return False
        with self.lock:
            self.passed += 1
            print(f"ok   {family}: {name} ({time.monotonic() - began:.1f} s)", flush=True)
        return True

    def end(self):
        if self.failures:
            print("failed:")
            for failure in self.failures:
                print(f"  {failure}")
        print(f"{self.passed} passed, {len(self.failures)} failed")
        return 1 if self.failures else 0
