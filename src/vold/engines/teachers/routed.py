"""Several teachers behind one: each prompt belongs to one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vold.types import ScoreRequest, Teacher, TokenScores


class RoutedTeacher:
    """Passes each request to the teacher of its prompt.

    Args:
        teachers: by name.
        route_of: the name of the teacher that a prompt is for.
    """

    def __init__(self, teachers: Mapping[str, Teacher], route_of: Callable[[tuple[int, ...]], str]) -> None:
        self.teachers, self.route_of = dict(teachers), route_of

    def score(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
        """Log-probs of every response token, in request order.

        Raises:
            TeacherError: a teacher failed.
        """
        by_route: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            by_route.setdefault(self.route_of(request.prompt_ids), []).append(i)
        found: dict[int, TokenScores] = {}
        for route, teacher in self.teachers.items():  # each: processes that divide one score with it at once
            places = by_route.get(route, [])
            found.update(zip(places, teacher.score([requests[i] for i in places]), strict=True))
        return [found[i] for i in range(len(requests))]
