from baltoro.evaluation.figures import passkey_picture, perplexity_picture, positions_picture
from baltoro.evaluation.passkey import PasskeyCell, PasskeyGrid
from baltoro.evaluation.perplexity import Perplexity
from baltoro.evaluation.positions import PositionBucket, PositionLosses

PNG = b"\x89PNG"


def perplexity(value, low=None, high=None):
    return Perplexity(1.0, value, low, high, 1000, 10, 5, 0)


def test_perplexity_picture_is_drawn_with_and_without_intervals_the_same_each_time():
    curves = {
        "yarn": {1024: perplexity(9.0, 8.5, 9.5), 2048: perplexity(8.0, 7.0, 9.0)},
        "longlora": {2048: perplexity(8.4)},
    }
    picture = perplexity_picture(curves, title="model")
    assert picture.startswith(PNG)
    assert picture == perplexity_picture(curves, title="model")
    assert picture != perplexity_picture({"yarn": curves["yarn"]}, title="model")


def test_positions_picture_is_drawn():
    losses = PositionLosses(
        16,
        tuple(
            PositionBucket(1 << n, (2 << n) - 1, 3 << n, 3.0 - n / 4, 2.5 - n / 4, 3.5 - n / 4)
            for n in range(4)
        ),
        3,
        0,
    )
    picture = positions_picture({"model": losses}, title="loss by position")
    assert picture.startswith(PNG)
    assert picture == positions_picture({"model": losses}, title="loss by position")


def test_passkey_picture_is_drawn():
    cells = tuple(
        PasskeyCell(length, depth, 10, found, found / 10, 0.0, 1.0, length)
        for length in (1024, 2048)
        for depth, found in ((0.0, 10), (0.5, 3), (1.0, 8))
    )
    assert passkey_picture(PasskeyGrid(cells), title="passkey").startswith(PNG)
