"""What a user gave, files and options, as one tree of names and values."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from diffsampler.errors import InputError

CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")

Tree = dict[str, Any]


def given(args: Sequence[str]) -> Iterator[Tree]:
    """What is known after each argument, by name: later values stand in the place of earlier ones.

    Raises:
        InputError: if a file cannot be read.
    """
    tree: Tree = {}
    for k, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name.startswith("-"):
            if not equals and k + 1 < len(args) and not args[k + 1].startswith("--"):
                value, equals = args[k + 1], "="
            if name in {"-c", "--config"}:
                _merge(tree, read_config(value))
            else:
                _put(tree, name.strip("-+").split("."), value if equals else None)
        yield tree


def read_config(path: str) -> Tree:
    """The names and values of a YAML file.

    Raises:
        InputError: if there is no such file, or it holds something else.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise InputError(f"config must be a YAML file, got {path!r}: {error.strerror}.") from error
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
        raise InputError(f"config {path!r} is no YAML at {where}: {error.problem}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"config must be a YAML file, got {path!r}, which is no text.") from error
    if not isinstance(content, dict):
        what = "empty" if content is None else f"a {type(content).__name__}"
        raise InputError(f"config {path!r} must give arguments their values, as in 'model: ...', but is {what}.")
    return content


def _merge(tree: Tree, other: Tree) -> None:
    for name, value in other.items():
        old = tree.get(name)
        if isinstance(old, dict) and isinstance(value, dict) and old.get("class_path") == value.get("class_path"):
            _merge(old, value)
        else:
            tree[name] = value


def _put(tree: Tree, names: list[str], value: Any) -> None:
    name, *rest = names
    if not rest:
        tree[name] = value
        return
    inner = tree.get(name)
    tree[name] = inner = {"class_path": inner} if isinstance(inner, str) else inner if isinstance(inner, dict) else {}
    if "class_path" in inner and rest[0] not in CLASS_KEYS:
        rest = ["init_args", *rest]
    _put(inner, rest, value)
