"""How a module of checks gathers them: `CHECKS = []`, `check = gather(CHECKS)`, then `@check("what it shows")` before each function, and the families that it needs."""


def gather(checks):
    """A decorator that puts a function among the checks: name, whether a family can run it, function."""
    def check(name, needs=lambda family: True):
        def add(function):
            checks.append((name, needs, function))
            return function
        return add
    return check
