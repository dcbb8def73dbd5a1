"""Driver processes for checks that run at the same time: each is lent to one check, and lent again when it came back whole."""
import collections
import threading

from suite.driver import Driver


class Pool:
    def __init__(self, bootstrap, directory, command_of, environment):
        self.bootstrap, self.directory, self.command_of, self.environment = bootstrap, directory, command_of, environment
        self.lock, self.idle, self.all = threading.Lock(), collections.defaultdict(list), []

    def take(self, name, command):
        key = (name, command)
        with self.lock:
            if self.idle[key]:
                return self.idle[key].pop()
            driver = Driver(name, self.command_of(command), self.bootstrap, self.directory / f"{name}-{len(self.all)}.log", self.environment)
            driver.key = key
            self.all.append(driver)
            return driver

    def give(self, driver):
        with self.lock:
            self.idle[driver.key].append(driver)

    def stop(self):
        for driver in self.all:
            driver.kill()
