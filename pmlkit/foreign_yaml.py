# SPDX-License-Identifier: Apache-2.0
"""YAML that somebody else has written: counted before it is expanded.

An alias stands for all that its anchor holds, and may be in an anchor itself: ten lines can stand
for a billion values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from typing import Any

__all__ = ["LIMIT_BYTES", "check_size", "foreign_yaml"]

LIMIT_BYTES = 4 << 20
LIMIT_VALUES = 100_000
LIMIT_DEPTH = 50


def foreign_yaml(text: str) -> Any:
    """Read one document.

    Parameters
    ----------
    text : str

    Returns
    -------
    object
        None if there is none.

    Raises
    ------
    yaml.YAMLError
        If it is no YAML.
    ValueError
        If it would grow too large, or is nested too deeply.
    """
    loader = yaml.SafeLoader(text)
    try:
        check_events(text)
        node = loader.get_single_node()
        check_size(node)
        return loader.construct_document(node) if node else None
    finally:
        loader.dispose()


def check_events(text: str) -> None:
    """Refuse a text that has more values, or is nested more deeply, than is taken in.

    Raises
    ------
    ValueError
    yaml.YAMLError
    """
    depth = values = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        values += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > LIMIT_DEPTH:
            raise ValueError(f"it is nested more than {LIMIT_DEPTH} deep")
        if values > LIMIT_VALUES:
            raise ValueError(f"it has more than {LIMIT_VALUES:,} values")


def check_size(node: yaml.Node | None) -> None:
    """Refuse a document whose aliases would make it too large; nothing is expanded for that.

    Raises
    ------
    ValueError
    """
    if node is not None:
        _size(node, {}, ())


def _size(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Count the values of a node as if each alias was written out."""
    if id(node) in above:
        raise ValueError(f"line {node.start_mark.line + 1} contains itself")
    if id(node) not in known:
        above, total = (*above, id(node)), 1
        for child in _children(node):
            total += _size(child, known, above)
            if total > LIMIT_VALUES:
                where = f"line {node.start_mark.line + 1}"
                raise ValueError(f"{where} stands for more than {LIMIT_VALUES:,} values")
        known[id(node)] = total
    return known[id(node)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []
