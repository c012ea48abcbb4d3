"""Several teachers behind one: each prompt belongs to one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.types import ScoreRequest, Teacher, TokenScores


class RoutedTeacher:
    """Passes each request to the teacher of its route.

    Args:
        teachers: by name.
    """

    def __init__(self, teachers: Mapping[str, Teacher]) -> None:
        self.teachers = dict(teachers)

    def score(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
        """Log-probs of every response token, in request order.

        Raises:
            TeacherError: a teacher failed.
        """
        by_route: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            by_route.setdefault(request.route, []).append(i)
        found: dict[int, TokenScores] = {}
        for route, teacher in self.teachers.items():  # each: processes that divide one score with it at once
            places = by_route.get(route, [])
            found.update(zip(places, teacher.score([requests[i] for i in places]), strict=True))
        return [found[i] for i in range(len(requests))]
