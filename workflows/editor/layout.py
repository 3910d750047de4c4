"""Where nodes stand on an editor's canvas: left to right, each to the right of what it needs."""

from collections.abc import Collection, Mapping, Sequence
from heapq import heapify, heappop, heappush

GAP_X, GAP_Y = 70.0, 60.0
Size = tuple[float, float]


def in_order(needs: Mapping[str, Collection[str]]) -> list[str]:
    """Each node after what it needs, otherwise in the order given; the nodes of a circle come last."""
    rank = {node_id: at for at, node_id in enumerate(needs)}
    missing = {node_id: {source for source in sources if source in rank} for node_id, sources in needs.items()}
    feeds: dict[str, list[str]] = {node_id: [] for node_id in needs}
    for node_id, sources in missing.items():
        for source in sources:
            feeds[source].append(node_id)
    ready = [(rank[node_id], node_id) for node_id, sources in missing.items() if not sources]
    heapify(ready)
    order: dict[str, None] = {}
    while ready:
        _, node_id = heappop(ready)
        order[node_id] = None
        for following in feeds[node_id]:
            missing[following].discard(node_id)
            if not missing[following]:
                heappush(ready, (rank[following], following))
    return [*order, *(node_id for node_id in needs if node_id not in order)]


def positions(order: Sequence[str], needs: Mapping[str, Collection[str]], sizes: Mapping[str, Size]) -> dict[str, Size]:
    """The left upper corner of each node: a column for every depth, in it each node about as high as its sources."""
    depth: dict[str, int] = {}
    for node_id in order:
        depth[node_id] = 1 + max((depth[source] for source in needs[node_id] if source in depth), default=-1)
    columns: dict[int, list[str]] = {}
    for node_id in order:
        columns.setdefault(depth[node_id], []).append(node_id)
    found: dict[str, Size] = {}
    x = 0.0
    for _, column in sorted(columns.items()):
        y = 0.0
        heights = {node_id: _height(node_id, needs[node_id], found) for node_id in column}
        for node_id in sorted(column, key=lambda each: heights[each]):
            found[node_id] = x, y
            y += sizes[node_id][1] + GAP_Y
        x += max(sizes[node_id][0] for node_id in column) + GAP_X
    return found


def _height(node_id: str, sources: Collection[str], placed: Mapping[str, Size]) -> float:
    """How high its sources stand on average."""
    heights = [placed[source][1] for source in sources if source in placed]
    return sum(heights) / len(heights) if heights else 0.0
