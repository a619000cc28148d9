"""Which texts of a batch run together, so that little of what a processor computes is padding."""

from collections.abc import Sequence


def group_by_length(rows: Sequence[int], lengths: Sequence[int], run_tokens: int) -> list[list[int]]:
    """Cut a batch, sorted by length, where a further run costs less than the padding that it saves.

    Args:
        rows: how many texts each tweet has.
        lengths: pieces of the longest of them.
        run_tokens: what a run of the text graph costs beside its tokens, in tokens.

    Returns:
        The tweets of every run, by index: `run_tokens` and rows times the longest text, of all runs, add up to least.
    """
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    costs, cuts = [0], [0]  # of the best groups of the shortest tweets: fewest tokens, and where the last one begins
    for end, longest in enumerate((lengths[place] for place in order), start=1):
        padded, best, cut = 0, None, 0
        for start in reversed(range(end)):
            padded += rows[order[start]] * longest
            cost = costs[start] + padded + run_tokens
            if best is None or cost < best:
                best, cut = cost, start
            elif padded >= best:  # and more with every further tweet
                break
        costs.append(best or 0)
        cuts.append(cut)
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.append(order[cuts[end] : end])
        end = cuts[end]
    return groups[::-1]
