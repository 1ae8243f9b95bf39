"""Strongly connected components of a graph of waits: who can only go on when somebody of a circle gives way."""

from collections.abc import Sequence


def knots(edges: Sequence[Sequence[int]]) -> list[list[int]]:
    """Strongly connected components of a directed graph, every component after those its edges lead to.

    Tarjan, "Depth-first search and linear graph algorithms" (1972), without recursion.

    Args:
        edges: for every node the nodes it waits for.
    """
    order = [0] * len(edges)  # 0: not seen
    low = [0] * len(edges)
    on_path = [False] * len(edges)
    path: list[int] = []
    found: list[list[int]] = []
    counter = 0
    for root in range(len(edges)):
        if order[root]:
            continue
        walk = [(root, iter(edges[root]))]
        counter += 1
        order[root] = low[root] = counter
        path.append(root)
        on_path[root] = True
        while walk:
            node, ahead = walk[-1]
            for after in ahead:
                if not order[after]:
                    counter += 1
                    order[after] = low[after] = counter
                    path.append(after)
                    on_path[after] = True
                    walk.append((after, iter(edges[after])))
                    break
                if on_path[after]:
                    low[node] = min(low[node], order[after])
            else:
                walk.pop()
                if walk:
                    low[walk[-1][0]] = min(low[walk[-1][0]], low[node])
                if low[node] == order[node]:
                    start = len(path) - 1
                    while path[start] != node:
                        start -= 1
                    found.append(path[start:])
                    for member in path[start:]:
                        on_path[member] = False
                    del path[start:]
    return found
