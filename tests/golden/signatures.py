"""Print the signature of every public class, method and function, one a line.

    python tests/golden/signatures.py > tests/golden/signatures.txt

Types are left out: their text differs from one version of Python to another.
"""

import importlib
import inspect
import pkgutil
import re
import sys

import skfocal


def public_modules():
    """Return the names of the modules in which no part begins with an underscore."""
    names = [module.name for module in pkgutil.walk_packages(skfocal.__path__, "skfocal.")]
    return sorted(name for name in names if "._" not in name)


def public_names(module):
    """Return the names in ``__all__``, or those of what is defined in a module or below it."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    inside = f"{module.__name__}."
    return sorted(
        name
        for name, value in vars(module).items()
        if name[0] != "_" and f"{getattr(value, '__module__', None)}.".startswith(inside)
    )


def signature(value):
    """Return a signature without types, and without the addresses of defaults."""
    parameters = inspect.signature(value).parameters.values()
    bare = inspect.Signature([p.replace(annotation=p.empty) for p in parameters])
    return re.sub(r"<(?:function |class '|)(.+?)(?:'| at 0x\w+)>", r"<\1>", str(bare))


def describe(path, value):
    """Yield the lines of a class, a function or a constant."""
    if not callable(value):
        yield f"{path}: {type(value).__name__}"
        return
    yield path + signature(value)
    if inspect.isclass(value):
        for name in sorted(own_names(value)):
            member = getattr(value, name)
            yield f"{path}.{name}{signature(member) if callable(member) else ''}"


def own_names(kind):
    """Return the public methods and properties of a class that this package has written."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("skfocal.")]
    members = {name: value for base in ours for name, value in vars(base).items()}
    return [
        name
        for name, value in members.items()
        if name[0] != "_"
        and not re.fullmatch(r"set_\w+_request", name)  # scikit-learn's
        and (inspect.isroutine(value) or isinstance(value, property))
    ]


def lines():
    """Return all lines; a name at the root of the package comes last."""
    found, homes = [], {}
    for home in [*public_modules(), "skfocal"]:
        module = importlib.import_module(home)
        for name in public_names(module):
            value, path = getattr(module, name), f"{home}.{name}"
            if callable(value) and value in homes:
                found.append(f"{path} is {homes[value]}")
                continue
            found.extend(describe(path, value))
            if callable(value):
                homes[value] = path
    return found


if __name__ == "__main__":
    sys.stdout.write("\n".join([*lines(), ""]))
