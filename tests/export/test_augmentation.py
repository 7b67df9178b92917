"""The exported augmentation against the library's own copies, in pipelines and in graphs."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from bayesinv.errors import DataError
from bayesinv.export import Augmentation
from bayesinv.transforms import SO3, Affine2d, Colour, ColumnShift, Compose, Flip, Jitter3d, TimeShift
from tests.export.cases import TRANSFORMS, augmentation, inputs


def rotation(extent: float = 0.6, shape=(1, 16, 16), **options) -> Augmentation:
    return Augmentation(Affine2d(["rotation"]), torch.tensor([[extent]]), shape, **options)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_copies_are_those_of_the_library(name):
    """Same draws, same pixels: the transform and its orbit, which share no code path for the copies of a batch."""
    transform, shape = TRANSFORMS[name]
    aug, x = augmentation(name), inputs(shape)
    torch.manual_seed(1)
    moved = aug(x)
    torch.manual_seed(1)
    t = aug.draw(len(x))
    assert (moved - transform.transform(x, t)).abs().max() < 1e-4
    shared = transform.orbit(x, t)  # (draws, examples, ...)
    assert (moved - torch.stack([shared[i, i] for i in range(len(x))])).abs().max() < 1e-4
    assert (moved - x).abs().max() > 1e-2


@pytest.mark.parametrize("name", TRANSFORMS)
def test_single_inputs_keep_their_shape_and_copies_come_first(name):
    shape = TRANSFORMS[name][1]
    assert augmentation(name)(inputs(shape)[0]).shape == shape
    assert augmentation(name, copies=4)(inputs(shape, 2)).shape == (4, 2, *shape)


def test_copies_and_inputs_have_draws_of_their_own():
    x = inputs((1, 16, 16), 1).expand(5, 1, 16, 16)
    flat = rotation(copies=3)(x).flatten(0, 1)
    assert torch.cdist(flat.flatten(1), flat.flatten(1)).fill_diagonal_(1).min() > 1e-3


def test_amounts_are_distributed_as_under_the_posterior():
    """t = η ε: with η of 0.2 or 0.6, |t| exceeds 0.2 in (1 - 1/3) / 2 of the draws; the flip of probability 0.3."""
    transform = Compose([Affine2d(["rotation"]), Flip()])
    aug = Augmentation(transform, torch.tensor([[0.2, 0.3], [0.6, 0.3]]), (1, 8, 8))
    t = aug.draw(20_000)
    assert float((t[:, 0].abs() > 0.2).double().mean()) == pytest.approx(1 / 3, abs=4 * 0.0034)
    assert float(t[:, 0].abs().max()) == pytest.approx(0.6, abs=0.001)
    assert float(t[:, 1].mean()) == pytest.approx(0.3, abs=4 * 0.0033)


def test_distributions_of_the_model_are_kept():
    aug = rotation(distributions={"rotation": "gaussian"})
    assert float(aug.draw(20_000).std()) == pytest.approx(0.6 / 3**0.5, rel=0.03)


def test_what_is_excluded_neither_moves_nor_refuses():
    transform = Compose([Affine2d(["rotation"]), Colour(["hue"])])
    aug = Augmentation(transform, torch.tensor([[0.5, 0.0]]), (1, 16, 16))
    assert aug(inputs((1, 16, 16))).shape == (6, 1, 16, 16)  # hue would refuse a grey image
    x = inputs((3, 16, 16))
    assert torch.equal(Augmentation(transform, torch.zeros(1, 2), (3, 16, 16))(x), x)  # to the bit


def test_a_sample_of_torchvision_moves_together():
    sample = {
        "image": tv_tensors.Image(torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8)),
        "more": [tv_tensors.Mask(torch.randint(0, 5, (32, 48)) * 7), torch.rand(3, 32, 48)],
        "boxes": tv_tensors.BoundingBoxes([[4, 4, 20, 20]], format="XYWH", canvas_size=(32, 48), dtype=torch.float32),
        "points": tv_tensors.KeyPoints([[3.0, 4.0]], canvas_size=(32, 48)),
        "label": 3,
    }
    moved = v2.Compose([rotation(shape=(3, 8, 8))])(sample)
    assert [type(v) for v in moved.values()] == [type(v) for v in sample.values()]
    assert moved["image"].dtype == torch.uint8 and moved["label"] == 3
    assert torch.equal(moved["more"][1], sample["more"][1])  # a plain tensor beside an image is no image
    for name in ("image", "boxes", "points"):
        assert moved[name].shape == sample[name].shape and not torch.equal(moved[name], sample[name])
    assert moved["boxes"].format == tv_tensors.BoundingBoxFormat.XYWH


def test_a_mask_follows_its_image_and_keeps_its_labels():
    labels = torch.randint(0, 4, (6, 32, 48)).repeat_interleave(4, 1)[:, :32] * 60
    image = tv_tensors.Image(labels[:, None].float())
    aug = Augmentation(Affine2d(), torch.tensor([[0.2, 0.2, 0.5, 0.2, 0.2, 0.2]]), (1, 32, 48))
    moved, mask = aug(image, tv_tensors.Mask(labels))  # a batch of six, each with draws of its own
    assert set(mask.unique().tolist()) <= set(labels.unique().tolist())
    assert mask.dtype == labels.dtype
    # Where four neighbours agree, bilinear values are labels: the same ones.
    sure = (moved[:, 0] % 60).abs() < 1e-3
    agree = (moved[:, 0].round() == mask)[sure].double().mean()
    assert sure.double().mean() > 0.05 and agree > 0.97


def test_bytes_and_pictures_are_read_as_shares_of_the_range():
    aug = rotation(shape=(3, 16, 16))
    picture = PIL.Image.fromarray((255 * inputs((16, 16, 3), 1)[0].numpy() % 255).astype("uint8"))
    as_bytes = v2.functional.pil_to_tensor(picture)
    results = []
    for x in (picture, as_bytes, as_bytes / 255):
        torch.manual_seed(2)
        results.append(aug(x))
    assert isinstance(results[0], PIL.Image.Image)
    assert torch.equal(v2.functional.pil_to_tensor(results[0]), results[1])
    assert (results[1] - 255 * results[2]).abs().max() <= 0.5 + 1 / 255
    bright = Augmentation(Colour(["brightness"]), torch.tensor([[1e6]]), (3, 16, 16))
    assert bright(as_bytes).unique().tolist() in ([0], [255])  # clipped, not wrapped


def test_frames_of_a_video_share_their_draw():
    frame = inputs((1, 16, 16), 1)
    video = rotation()(tv_tensors.Video(frame.expand(4, 1, 16, 16)))
    assert isinstance(video, tv_tensors.Video) and torch.equal(video[0], video[3])
    assert not torch.equal(video[0], frame[0])


class Pictures(Dataset):
    def __init__(self, aug):
        self.aug = aug

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return self.aug(torch.linspace(0, 1, 256).reshape(1, 16, 16)), i


@pytest.mark.parametrize("seed", [None, 5])
def test_workers_differ_and_are_seeded(seed):
    def epochs(start):
        torch.manual_seed(start)
        loader = DataLoader(Pictures(rotation(seed=seed)), batch_size=1, num_workers=2)
        return [torch.cat([x for x, _ in loader]) for _ in range(2)]

    first, second = epochs(0)
    every = torch.cat([first, second]).flatten(1)
    assert torch.cdist(every, every).fill_diagonal_(1).min() > 1e-3  # no two workers, calls or epochs alike
    assert all(torch.equal(a, b) for a, b in zip([first, second], epochs(0), strict=True))
    assert not torch.equal(first, epochs(1)[0])


def test_a_seed_of_its_own_leaves_the_global_generator_alone():
    x, before = inputs((1, 16, 16)), torch.get_rng_state()
    first = rotation(seed=3)
    one, two = first(x), first(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(rotation(seed=3)(x), one) and not torch.equal(one, two)
    assert torch.equal(pickle.loads(pickle.dumps(first))(x), one) and torch.equal(copy.deepcopy(first)(x), one)
    assert not torch.equal(rotation(seed=4)(x), one)


def test_arrays_and_labels_go_through_other_kinds():
    aug = Augmentation(TimeShift(10.0), torch.tensor([[0.5]]), (2, 60))
    x, y = inputs((2, 60)), torch.arange(6)
    moved, labels = aug(x, y)
    assert moved.shape == x.shape and labels is y and not torch.equal(moved, x)
    table = np.random.default_rng(0).normal(size=(9, 3))
    shifted = Augmentation(ColumnShift([0]), torch.tensor([[1.0]]), (3,))(table)
    assert isinstance(shifted, np.ndarray) and (shifted[:, 1:] == table[:, 1:]).all()
    assert np.ptp(shifted[:, 0] - table[:, 0]) > 0.5


def test_graphs_move_by_their_positions():
    aug = Augmentation(Compose([SO3(mask=3), Jitter3d(mask=3)]), torch.tensor([[3.0, 0.0]]), (7, 4))
    data = SimpleNamespace(pos=torch.rand(9, 3), x=torch.rand(9, 2), batch=torch.tensor([0] * 4 + [1] * 5))
    moved = aug(data)
    assert moved.x is data.x and not torch.equal(moved.pos, data.pos)
    for rows in (slice(0, 4), slice(4, 9)):  # each graph turned rigidly
        before, after = torch.cdist(data.pos[rows], data.pos[rows]), torch.cdist(moved.pos[rows], moved.pos[rows])
        assert (before - after).abs().max() < 1e-5
    across = torch.cdist(data.pos[:4], data.pos[4:]) - torch.cdist(moved.pos[:4], moved.pos[4:])
    assert across.abs().max() > 1e-2  # by another turn


@pytest.mark.parametrize("name", TRANSFORMS)
def test_graphs_hold_fresh_draws(name):
    """Traced with torch.export and with torch.compile, without a break; every call draws anew."""
    aug, x = augmentation(name), inputs(TRANSFORMS[name][1])
    exported = torch.export.export(aug, (x,), strict=False).module()
    torch.manual_seed(7)
    expected = aug(x)
    torch.manual_seed(7)
    first, second = exported(x), exported(x)
    assert (first - expected).abs().max() < 1e-5 and not torch.equal(first, second)


@pytest.mark.slow
def test_compiles_without_a_break():
    """In a process without the shape checks of the tests, which torch.compile cannot see through."""
    code = (
        "import torch\n"
        "from tests.export.cases import TRANSFORMS, augmentation, inputs\n"
        "for name in TRANSFORMS:\n"
        "    torch.compiler.reset()\n"  # more kinds of transforms than torch.compile compiles one function for
        "    aug, x = augmentation(name), inputs(TRANSFORMS[name][1])\n"
        "    torch.manual_seed(7)\n"
        "    expected = aug(x)\n"
        "    torch.manual_seed(7)\n"
        "    moved = torch.compile(aug, backend='eager', fullgraph=True)(x)\n"
        "    assert (moved - expected).abs().max() < 1e-5, name\n"
        "    seeded = augmentation(name, seed=1)\n"
        "    moved = torch.compile(augmentation(name, seed=1), backend='eager')(x)\n"
        "    assert (moved - seeded(x)).abs().max() < 1e-5, name\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=root, check=True)


def test_half_precision_is_sampled_in_single():
    x = inputs((1, 64, 64))
    torch.manual_seed(0)
    low = rotation()(x.to(torch.bfloat16))
    torch.manual_seed(0)
    assert low.dtype == torch.bfloat16
    assert (low - rotation()(x.to(torch.bfloat16).float())).abs().max() < 0.01


@pytest.mark.cuda
def test_on_a_device():
    x = inputs((1, 16, 16))
    aug = rotation().cuda()
    t = aug.draw(len(x), device="cuda")
    assert (aug.move(x.cuda(), t).cpu() - aug.cpu().move(x, t.cpu())).abs().max() < 1e-4
    assert rotation()(x.cuda()).device.type == "cuda"


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: rotation(-0.1), ValueError),
        (lambda: rotation(float("nan")), ValueError),
        (lambda: Augmentation(Affine2d(["rotation"]), torch.zeros(2, 2), (1, 8, 8)), ValueError),
        (lambda: rotation(copies=0), ValueError),
        (lambda: rotation(seed=-1), ValueError),
        (lambda: rotation(distributions={"shear": "gaussian"}), ValueError),
        (lambda: rotation()(torch.rand(8, 8)), DataError),
        (lambda: rotation()(torch.arange(64).reshape(1, 8, 8)), DataError),
        (lambda: rotation()(PIL.Image.new("P", (8, 8))), DataError),
        (lambda: rotation(copies=2)(PIL.Image.new("L", (8, 8))), DataError),
        (lambda: rotation()(torch.rand(2, 1, 8, 8), tv_tensors.KeyPoints([[1.0, 1.0]], canvas_size=(8, 8))), DataError),
        (lambda: rotation()(torch.rand(2, 1, 8, 8), tv_tensors.Mask(torch.zeros(3, 8, 8))), DataError),
        (lambda: augmentation("rows")("text"), DataError),
        (lambda: augmentation("time")(torch.rand(60)), DataError),
        (lambda: augmentation("rows")(SimpleNamespace(pos=torch.rand(3, 3))), DataError),
        (lambda: torch.export.export(rotation(seed=1), (torch.rand(2, 1, 8, 8),), strict=False), ValueError),
    ],
)
def test_bad_input_is_named(make, error):
    with pytest.raises(error, match=r"expected|unknown|draws from"):
        make()


def test_rotated_boxes_are_refused():
    box = tv_tensors.BoundingBoxes([[4.0, 4, 2, 2, 30]], format="CXCYWHR", canvas_size=(8, 8))
    with pytest.raises(DataError, match="KeyPoints"):
        rotation()(torch.rand(1, 8, 8), box)
