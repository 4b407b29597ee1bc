"""Tags as data has them: stray ones are found before anything is trained on them."""

from collections import Counter
from collections.abc import Iterable, Mapping

from bert_jax.errors import UserError
from bert_jax.metrics.tag_schemes import TagScheme

_SHOWN = 5


def respelt(tags: Iterable[tuple[str, str]], source: str) -> Mapping[str, str]:
    """Returns the tags that are others in another case, such as an o for O, and what they are read as; says so.

    Args:
      tags: each tag of a file and where it stands.
      source: the file, for messages.

    Raises:
      UserError: most tags are of a scheme, and some are not: they would be neither entities nor outside of them.
    """
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for tag, place in tags:
        counts[tag] += 1
        first.setdefault(tag, place)
    scheme = TagScheme.of(counts)
    if scheme is None:
        return {}
    if scheme.others:
        shown = sorted(scheme.others, key=lambda tag: -counts[tag])[:_SHOWN]
        listed = ", ".join(f"{tag!r} ({counts[tag]:,} times, first at {first[tag]})" for tag in shown)
        more = f" and {len(scheme.others) - _SHOWN} more" if len(scheme.others) > _SHOWN else ""
        raise UserError(f"{source}: tags are {scheme}, but not {listed}{more}: mend these, or take them out")
    usual: dict[tuple[str, ...], str] = {}
    types: Counter[str] = Counter()
    for tag, count in counts.items():
        types[scheme.read(tag)[1]] += count
    spelling = {entity_type.casefold(): entity_type for entity_type, _ in reversed(types.most_common())}
    changed: dict[str, str] = {}
    for tag, _ in counts.most_common():
        letter, entity_type = scheme.read(tag)
        common = spelling[entity_type.casefold()]
        read_as = tag if common == entity_type else scheme.typed(tag, common)
        read_as = usual.setdefault((letter, common), read_as)
        if read_as != tag:
            changed[tag] = read_as
    for tag, other in changed.items():
        print(f"{source}: tag {tag!r} ({counts[tag]:,} times, first at {first[tag]}) is read as {other!r}")
    return changed
