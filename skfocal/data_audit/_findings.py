"""What an audit has found, in sentences, and the summary for a terminal."""

from typing import TYPE_CHECKING, Any

from skfocal._utils.messages import excerpt, excerpts

if TYPE_CHECKING:
    from skfocal.data_audit._audit import Audit

_UNKNOWN = 0.05  # share of unknown tokens that `fit` warns of
_DOUBTFUL = 0.1  # probability of a label
_NAMED = 5  # classes, labels or documents that the summary names


def sentences(audit: "Audit") -> list[str]:
    """Return the findings, those that spoil a score or a label first."""
    found = [
        *_leaks(audit),
        *_differing(audit),
        *_doubtful(audit),
        *_variants(audit),
        *_only_in_one(audit),
        *_hidden(audit),
        *_texts(audit),
        *_repeated(audit),
    ]
    return found


def share(value: float) -> str:
    """Return a share in per cent, of a small one three digits.

    Examples
    --------
    >>> share(0.25), share(0.00012), share(0.0)
    ('25 %', '0.012 %', '0 %')
    """
    percent = 100 * value
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"


def times(ratio: float) -> str:
    """Return a ratio of counts, a small one with three digits.

    Examples
    --------
    >>> times(2840.0), times(12.4), times(1.5)
    ('2,840', '12', '1.5')
    """
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.3g}"


def many(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> many(1, "class", "classes"), many(2000, "document")
    ('1 class', '2,000 documents')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def _leaks(audit: "Audit") -> list[str]:
    n = int(audit.overall.get("test documents with a duplicate in training", 0))
    if not n:
        return []
    part = share(n / audit.overall["test documents"])
    table = audit.duplicates
    exact = len(
        {
            row
            for row, kind, other, is_exact in zip(
                table["other_row"],
                table["set"],
                table["other_set"],
                table["exact"],
                strict=True,
            )
            if is_exact and (kind, other) == ("training", "test")
        }
    )
    verb = "has" if n == 1 else "have"
    how = "word for word" if exact == n else f"{exact:,} of them word for word"
    return [
        f"{many(n, 'test document')} ({part}) {verb} a duplicate in training, {how}: scores on "
        "the test may be too high."
    ]


def _differing(audit: "Audit") -> list[str]:
    n = int(audit.overall["with a duplicate of another label"])
    if not n:
        return []
    return [
        f"{many(n, 'document')} have a duplicate of another label: a label is wrong, or the text "
        "does not tell the classes apart."
    ]


def _doubtful(audit: "Audit") -> list[str]:
    if audit.doubts_left_out:
        return [f"Labels were not judged: {audit.doubts_left_out}."]
    n = sum(p < _DOUBTFUL for p in audit.doubtful_labels["probability"])
    if not n:
        return []
    part, verb = share(n / audit.n_judged), "has a label" if n == 1 else "have labels"
    return [
        f"{many(n, 'document')} ({part}) {verb} that a classifier which has not seen "
        f"{'it' if n == 1 else 'them'} finds improbable (p < {_DOUBTFUL:g}): read "
        f"{'it' if n == 1 else 'the first ones'}."
    ]


def _variants(audit: "Audit") -> list[str]:
    groups = audit.label_variants["labels"]
    return [
        f"The labels {excerpts(labels)} differ only in case or blanks."
        for labels in groups[:_NAMED]
    ] + [f"So do {len(groups) - _NAMED} more groups of labels."] * (len(groups) > _NAMED)


def _only_in_one(audit: "Audit") -> list[str]:
    table, found = audit.per_class, []
    if "test_documents" in table:
        unknown = table["label"][(table["documents"] == 0) & (table["test_documents"] > 0)]
        absent = table["label"][(table["documents"] > 0) & (table["test_documents"] == 0)]
        if len(unknown):
            found.append(f"Only test documents have the {_named(unknown, audit)}.")
        if len(absent):
            found.append(f"No test document has the {_named(absent, audit)}.")
    nowhere = table["documents"] == 0
    if "test_documents" in table:
        nowhere &= table["test_documents"] == 0
    if nowhere.any():
        found.append(f"No document has the {_named(table['label'][nowhere], audit)}.")
    return found


def _named(labels: Any, audit: "Audit") -> str:
    """Return labels for a sentence, a few of many."""
    nouns = ("label", "labels") if audit.multilabel else ("class", "classes")
    names = ", ".join(excerpt(label, 40) for label in labels[:_NAMED].tolist())
    others = f" and {len(labels) - _NAMED} others" if len(labels) > _NAMED else ""
    return f"{nouns[len(labels) > 1]} {names}{others}"


def _hidden(audit: "Audit") -> list[str]:
    table = audit.hidden_classes
    rows = list(zip(table["label"], table["documents"], table["other"], strict=True))
    found = [
        f"The {many(n, 'document')} of {excerpt(label, 40)} lie among those of "
        f"{excerpt(other, 40)}: their nearest neighbours have no other label."
        for label, n, other in rows[:_NAMED]
    ]
    rest = len(rows) - _NAMED
    return found + [f"So do those of {many(rest, 'other label')}."] * (rest > 0)


def _texts(audit: "Audit") -> list[str]:
    numbers, found = audit.overall, []
    if n := int(numbers["empty"]):
        found.append(f"{many(n, 'document')} {'is' if n == 1 else 'are'} empty.")
    if n := int(numbers["nearly empty"]):
        found.append(f"{many(n, 'document')} {'has' if n == 1 else 'have'} one to three tokens.")
    if part := numbers["cut share"]:
        found.append(
            f"{share(part)} of the documents have more than max_length={audit.max_length} tokens "
            "and lose their end."
        )
    if (part := numbers["unknown token share"]) >= _UNKNOWN:
        found.append(
            f"{share(part)} of all tokens are unknown to the model's tokenizer: choose a model of "
            "this language."
        )
    return found


def _repeated(audit: "Audit") -> list[str]:
    n = int(audit.overall["with a duplicate"])
    if not n:
        return []
    part = share(n / audit.overall["documents"])
    return [
        f"{many(n, 'document')} ({part}) {'has' if n == 1 else 'have'} a duplicate among the "
        "training documents. Keep duplicates on one side of each split."
    ]


# -- the terminal --------------------------------------------------------------------------


def summary(audit: "Audit") -> str:
    """Return the audit as plain text."""
    n, numbers = int(audit.overall["documents"]), audit.overall
    kind = ("label", "labels") if audit.multilabel else ("class", "classes")
    test = int(numbers.get("test documents", 0))
    beside = f", and {many(test, 'test document')}" if test else ""
    count = many(int(numbers[kind[1]]), *kind)
    lines = [f"{many(n, 'document')} of {count}{beside}", "", *_class_lines(audit), ""]
    lines += ["Found"] + [f"- {line}" for line in audit.findings or ["Nothing to mend."]]
    lines += ["", "Suggested split", f"  {audit.splitter}"] * bool(audit.splitter)
    lines += [f"  {audit.reasons['split']}", "", "Suggested first grid"]
    for name, values in audit.grid.items():
        lines += [f"  {name}: {values}", f"    {audit.reasons[name]}"]
    if "long documents" in audit.reasons:
        lines.append(f"  {audit.reasons['long documents']}")
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)


def _class_lines(audit: "Audit", most: int = 12) -> list[str]:
    """Return a table of the most frequent and the rarest classes."""
    table = audit.per_class
    n = len(table["label"])
    rows = list(range(n)) if n <= most else [*range(most // 2), *range(n - most // 2, n)]
    names = [_clipped(table["label"][i]) for i in rows]
    width = max(12, *map(len, names))
    with_test = "test_documents" in table
    head = (
        f"{'':{width}} documents" + "      test" * with_test + "  median tokens      cut  unknown"
    )
    lines = [head]
    for i, name in zip(rows, names, strict=True):
        test = f"{table['test_documents'][i]:10,}" if with_test else ""
        tokens = "–" if table["documents"][i] == 0 else f"{table['median_tokens'][i]:.0f}"
        parts = [
            "–" if value != value else share(value)
            for value in (table["cut_share"][i], table["unknown_share"][i])
        ]
        counts = f"{table['documents'][i]:10,}{test}"
        lines.append(f"{name:{width}}{counts}{tokens:>15}{parts[0]:>9}{parts[1]:>9}")
        if n > most and len(lines) == most // 2 + 1:
            lines.append(f"... {n - most} more")
    return lines


def _clipped(label: Any) -> str:
    text = " ".join(str(label).split())
    text = "".join(c if c.isprintable() else " " for c in text) or "(empty)"
    return text if len(text) <= 28 else text[:27] + "…"
