"""What a request answers does not depend on the request before it: files whose timestamps lie, behind other videos."""

from __future__ import annotations

import random
from functools import cache

from serving.server import TorchServe
from tests.support.mutation import made_here, mutate
from tests.support.traffic import Answer, Client
from tests.support.videos import VideoPlan, make_video, make_with_stamps

FILES = 100
_FRAMES = 49  # the first window of x3d_xs holds frames 0 to 48 of these files
_OPTIONS: tuple[dict[str, str], ...] = ({}, {"num_crops": "3"}, {"num_clips": "3"}, {"stride_sec": "0.4"})


@cache
def _ordinary() -> list[bytes]:
    return made_here()


def lying_file(number: int) -> bytes:
    """Frames whose stamps are swapped, shuffled or repeated; every third file is a damaged ordinary video."""
    chance = random.Random(number)
    if number % 3 == 2:
        return mutate(_ordinary(), number)
    order = list(range(_FRAMES))
    if number % 3 == 0:
        late = chance.randrange(_FRAMES // 2, _FRAMES)
        order.insert(1, order.pop(late))
    else:
        chance.shuffle(order)
    order += chance.choices(order, k=chance.randrange(4))
    return make_with_stamps([33 * place for place in order], width=64, height=48)


def outcome(answer: Answer) -> tuple[int, object]:
    """Status and scores, or what was refused: nothing that is measured in milliseconds."""
    content = answer.json()
    kept = {"predictions", "clips", "timeline", "segments", "code", "type", "message"}
    return answer.status, {name: value for name, value in content.items() if name in kept}


def test_a_video_before_changes_no_answer(server: TorchServe) -> None:
    client = Client(server, "x3d_xs", **{"X-Format": "full"})
    victims = [
        make_video(VideoPlan(num_frames=90, width=160, height=120)),
        make_video(VideoPlan(num_frames=90, width=120, height=160, codec="mpeg4", b_frames=0)),
    ]
    pids = server.worker_pids("x3d_xs")
    answered = 0
    for number in range(FILES):
        file, options = lying_file(number), _OPTIONS[number % len(_OPTIONS)]
        outcomes = []
        for victim in victims:
            assert client.post(victim, **options).status == 200
            outcomes.append(outcome(client.post(file, **options)))
        assert outcomes[0] == outcomes[1], f"file {number}"
        answered += outcomes[0][0] == 200
    assert answered > FILES // 3, "hardly a file is answered: the test sees nothing"
    assert server.worker_pids("x3d_xs") == pids
