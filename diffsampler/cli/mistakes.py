"""Mistakes in one line: which argument, what was given, what is accepted.

jsonargparse reports a mistake as a tree of everything it tried. Where it has refused, what was given is compared here
with the annotations that it goes by, from the outside inwards, and the first value that does not fit is named.
"""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import Any, get_args

import yaml
from torch import Tensor

from diffsampler.cli.annotations import Parameters, family_of, fits, in_words, is_list, members, parameters_of
from diffsampler.cli.given import CLASS_KEYS, read_config
from diffsampler.families import Tempered
from diffsampler.models import StanModel
from diffsampler.renamed import names_meant
from diffsampler.target import Target

MADE_FROM_FILES = {StanModel, Tempered}  # the library's own targets that a command line can give what they need


def find_mistake(key: str, values: Any, parameters: Parameters, complete: bool) -> str | None:
    """The first value that no parameter takes, in a sentence; None where all are taken.

    Arguments:
        key: the dotted name of what the parameters belong to, "" for the command.
        values: by name.
        parameters: by name.
        complete: whether what is required must be there.
    """
    if not isinstance(values, dict):
        given = "null" if values is None else repr(values)
        return f"{key} must give arguments their values, or be left out, got {given}."
    prefix = f"{key}." if key else ""
    for name, value in values.items():
        if name not in parameters:
            return _unknown(prefix, str(name), value, parameters)
        if found := _mistake(prefix + name, value, parameters[name], complete):
            return found
    for name in parameters.keys() - values.keys() if complete else ():
        parameter = parameters[name]
        if isinstance(parameter, dict):
            if found := find_mistake(prefix + name, {}, parameter, complete):
                return found
        elif parameter.default is parameter.empty:
            return f"{prefix}{name} is required.{_accepted(family_of(parameter.annotation)[0])}"
    return None


def innermost(error: BaseException) -> str:
    """The key that an error of jsonargparse names, and the first line of the error that led to it: the fallback."""
    where = ".".join(re.findall(r'Parser key "([^"]+)"', str(error)))
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{where}: {error}".removeprefix(": ").strip().partition("\n")[0]


def said_by(error: BaseException) -> str:
    """An error of the user's code, with the line that raised it."""
    frames = [frame for frame in extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    last = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
    where = "" if isinstance(error, SyntaxError) else last  # which says it by itself
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def _unknown(prefix: str, name: str, value: Any, parameters: Parameters) -> str:
    groups = [f"{group}.{name}" for group, inside in parameters.items() if isinstance(inside, dict) and name in inside]
    meant = groups or [prefix + each for each in names_meant(name, parameters)]
    did_you = f" did you mean --{' or --'.join(meant)}?" if meant else ""
    accepted = f"accepted are {', '.join(parameters)}" if parameters else "it takes no arguments"
    inner = f".{next(iter(value))}" if isinstance(value, dict) and value else ""
    return f"unrecognized argument --{prefix}{name}{inner}:{did_you} {name!r} is not accepted; {accepted}."


def _mistake(key: str, value: Any, parameter: inspect.Parameter | Parameters, complete: bool) -> str | None:
    if isinstance(parameter, dict):
        return find_mistake(key, value, parameter, complete)
    loaded, types = _load(value), list(members(parameter.annotation))
    if any(fits(each, member) for each in (value, loaded) for member in types):
        return None
    lists = [get_args(member) or (Any,) for member in types if is_list(member)]
    if isinstance(loaded, list) and lists:
        element = parameter.replace(annotation=lists[0][0])
        found = (_mistake(f"{key}[{k}]", each, element, complete) for k, each in enumerate(loaded))
        return next(filter(None, found), None)
    family, is_made_later = family_of(parameter.annotation)
    if family is not None and (loaded is None or isinstance(loaded, str | dict)):
        return _class_mistake(key, loaded, family, is_made_later, parameter.default, complete)
    return f"{key}: expected {' or '.join(dict.fromkeys(filter(None, map(in_words, types))))}, got {value!r}."


def _load(value: Any) -> Any:
    """A value of the command line as it is read; others as they are."""
    try:
        loaded = yaml.safe_load(value) if isinstance(value, str) else value
        return float(loaded) if isinstance(loaded, str) and loaded[:1].isdigit() else loaded  # 1e-3 is text in YAML
    except (yaml.YAMLError, ValueError):
        return value


def _class_mistake(key: str, value: Any, family: type, is_made_later: bool, default: Any, complete: bool) -> str | None:
    accepted = _accepted(family)
    if isinstance(value, str):
        value = read_config(value) if value.endswith((".yaml", ".yml")) else {"class_path": value}
    if value is None or value.get("class_path", "") is None:
        return f"{key}: must name a class, got null.{accepted}"
    if unknown := set(value) - set(CLASS_KEYS) if "class_path" in value else set():
        return f"{key}: {unknown.pop()!r} is not accepted beside class_path; accepted is init_args."
    init_args = value.get("init_args", {}) if set(value) <= set(CLASS_KEYS) else value
    if "class_path" not in value and (default is None or default is inspect.Parameter.empty):
        return f"{key}: name a class before its argument {next(iter(init_args or value))!r}.{accepted}"
    try:
        made = _find(value["class_path"], family) if "class_path" in value else default
    except ImportError as error:
        return f"{key}: {error}{accepted}"
    if not isinstance(made, type):
        if family is Tensor and inspect.signature(made).return_annotation is inspect.Signature.empty:
            return f"{key}: {value['class_path']} says nothing of what it returns.{accepted}"
        return None  # a function that makes one: what it takes is its own
    if not issubclass(made, family):
        return f"{key}: {made.__name__} is no {family.__name__}.{accepted}"
    if missing := sorted(getattr(made, "__abstractmethods__", ())):
        return f"{key}: {made.__name__} must define {', '.join(missing)}, as every {family.__name__} does."
    key = key if isinstance(init_args, dict) else f"{key}.init_args"
    return find_mistake(key, init_args, parameters_of(made, skip=int(is_made_later)), complete)


def _find(name: Any, family: type) -> Any:
    """What a class_path names; ImportError, in words, where that is nothing."""
    if not isinstance(name, str):
        raise ImportError(f"class_path must be a name, got {name!r}.")
    module, _, last = name.rpartition(".")
    if last == "py" or not all(part.isidentifier() for part in name.split(".")):
        raise ImportError(f"{name!r} is not the name of a class.")
    if not module:
        known = {subclass.__name__: subclass for subclass in _subclasses(family)}
        if name not in known:
            raise ImportError(f"unknown name {name!r}{_did_you_mean(names_meant(name, known))}")
        return known[name]
    try:
        found = import_module(module)
    except Exception as error:
        is_missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        reason = f"importing {module} raises {said_by(error)}."
        if is_missing:
            rest = name.removeprefix(error.name)
            reason = f"{error}{_did_you_mean([near + rest for near in _modules_meant(error.name)])}"
        raise ImportError(f"cannot use {name!r}: {reason}") from error
    if not hasattr(found, last):
        known = [each for each, value in vars(found).items() if _is_one(value, family)]
        meant = [f"{module}.{near}" for near in names_meant(last, known)]
        raise ImportError(f"cannot use {name!r}: there is no {last} in {module}{_did_you_mean(meant)}")
    return getattr(found, last)


def _did_you_mean(names: list[str]) -> str:
    """The end of a sentence on a name that is not known."""
    return f", did you mean {' or '.join(names)}?" if names else "."


def _modules_meant(name: str) -> list[str]:
    """Dotted names of modules that are spelt like one that is not there: beside it, or in the working folder."""
    package, _, last = name.rpartition(".")
    folders = getattr(import_module(package), "__path__", []) if package else [Path.cwd()]
    beside = [path for folder in map(Path, folders) if folder.is_dir() for path in folder.iterdir()]
    known = {path.stem for path in beside if path.suffix == ".py" or path.is_dir()} | (
        set() if package else {"targets", "diffsampler"}
    )
    return [f"{package}.{near}".removeprefix(".") for near in names_meant(last, sorted(known))]


def _is_one(value: Any, family: type) -> bool:
    """Whether what a module holds is a class of a family, or for tensors a function."""
    return inspect.isfunction(value) if family is Tensor else _can_be_made(value) and issubclass(value, family)


def _can_be_made(value: Any) -> bool:
    """Whether something is a class of which there are objects."""
    return isinstance(value, type) and not getattr(value, "__abstractmethods__", None)


def _accepted(family: type | None) -> str:
    """The classes of a family, in a sentence; "" without one."""
    if family is None:
        return ""
    if family is Tensor:
        return (
            " Accepted: the dotted path of a function of yours, such as my_file.my_function, whose arguments and "
            "result are annotated as torch.Tensor."
        )
    # The library's own targets wrap functions or other targets, which a command line cannot give; a file it can.
    package = "targets" if family is Target else family.__module__.partition(".")[0]
    shipped = sorted(
        subclass.__name__
        for subclass in set(_subclasses(family))
        if (subclass.__module__.startswith(f"{package}.") and _can_be_made(subclass)) or subclass in MADE_FROM_FILES
    )
    example = f"my_file.My{family.__name__}"
    return f" Accepted: {', '.join(shipped)}, or the dotted path of a class of yours, such as {example}."


def _subclasses(family: type) -> Iterator[type]:
    for subclass in family.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
