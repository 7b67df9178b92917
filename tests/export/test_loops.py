"""The page on Lightning and Hugging Face compiles, what it says holds, and it runs where they are installed."""

import re
from pathlib import Path

import PIL.Image
import pytest
import torch

import bayesinv
from bayesinv.export import Augmentation
from bayesinv.transforms import Affine2d

PAGE = (Path(__file__).parents[2] / "docs" / "loops.md").read_text(encoding="utf-8")
LIGHTNING, HUGGING_FACE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def small(block: str) -> str:
    """With few images, one epoch and few copies."""
    block = re.sub(r"(train, test = .*)num_train=500(.*)", r"\1num_train=40\2\ntest = test.subset(range(20))", block)
    block = re.sub(r"(max_epochs|num_train_epochs)=20", r"\1=1", block).replace("num_copies=16", "num_copies=2")
    assert "subset" in block and "epochs=1" in block and "num_copies=2" in block
    return block


@pytest.fixture
def augmentation(tmp_path, monkeypatch):
    """In a file, where the page looks for it."""
    monkeypatch.chdir(tmp_path)
    aug = Augmentation(Affine2d(["rotation"]), torch.tensor([[0.7], [0.8]]), (1, 16, 16))
    aug.save("aug.safetensors")
    return aug


@pytest.mark.parametrize("block", [LIGHTNING, HUGGING_FACE], ids=["lightning", "hugging-face"])
def test_the_blocks_compile_and_name_what_there_is(block):
    compile(small(block), "loops.md", "exec")
    for name in re.findall(r"bayesinv\.([\w.]+)\(", block):
        value = bayesinv
        for part in name.split("."):
            value = getattr(value, part)
        assert callable(value)


def test_pictures_of_one_call_share_a_draw_and_images_of_a_batch_do_not(augmentation):
    x = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    picture = PIL.Image.fromarray((x[0] * 255).byte().numpy())
    first, second = augmentation([picture, picture])
    assert first.tobytes() == second.tobytes() != picture.tobytes()
    first, second = (augmentation(each) for each in (picture, picture))
    assert first.tobytes() != second.tobytes()
    first, second = augmentation(torch.stack([x, x]))
    assert not torch.equal(first, second)
    assert not list(augmentation.parameters())
    assert augmentation(picture.convert("RGB")).mode == "RGB"  # learned from one channel


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of loaders, loggers and small batches
def test_lightning_moves_batches_of_training_alone(augmentation, capsys):
    pytest.importorskip("lightning", reason="the example needs Lightning")
    names: dict = {}
    exec(compile(small(LIGHTNING), "loops.md", "exec"), names)
    assert 0 <= float(re.search(r"tensor\((\S+)\)", capsys.readouterr().out)[1]) <= 1
    batch = (names["train"].x[:4].float(), names["train"].y[:4])
    seen = {}
    for training in (True, False):
        names["model"].trainer.state.stage = "train" if training else "validate"
        names["trainer"].training = training
        seen[training] = names["model"].on_after_batch_transfer(batch, 0)
    assert torch.equal(seen[False][0], batch[0]) and not torch.equal(seen[True][0], batch[0])
    assert "augmentation.extents" in names["model"].state_dict()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_hugging_face_moves_training_images_before_the_processor(augmentation, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("transformers", "datasets", "accelerate"):
        pytest.importorskip(name, reason=f"the example needs {name}")
    names: dict = {}
    exec(compile(small(HUGGING_FACE), "loops.md", "exec"), names)
    assert 0 <= float(re.search(r"tensor\((\S+)\)", capsys.readouterr().out)[1]) <= 1
    training, validation = (names[name] for name in ("training", "validation"))
    assert training[0]["pixel_values"].shape == (3, 32, 32)
    assert not torch.equal(training[0]["pixel_values"], training[0]["pixel_values"])  # anew at each access
    assert torch.equal(validation[0]["pixel_values"], validation[0]["pixel_values"])
    # What a rotation leaves empty is black, −1 after the processor, and not its 0.
    assert training[0]["pixel_values"][:, 0, 0] == pytest.approx(-1.0)
    # The average at test time is on the processor's inputs: one copy that does not move gives the model's own logits.
    still = Augmentation(Affine2d(["rotation"]), torch.zeros(1, 1), (1, 16, 16))
    net, x = names["predictor"].net, names["test"].x.float()
    average = bayesinv.InvariantPredictor(net, still, num_copies=2).eval()
    own = torch.stack([row["pixel_values"] for row in validation])
    with torch.no_grad():
        torch.testing.assert_close(average(x), net.model(own).logits, atol=0.02, rtol=0)
