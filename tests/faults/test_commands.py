"""Row 36: what is mistyped."""

import pytest

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize(
    ("command", "argument", "said"),
    [
        ("train", "model=distlbert", "no model named 'distlbert' (did you mean 'distilbert'?)"),
        ("train", "modle=distilbert", "unknown option 'modle' (did you mean 'model'?)"),
        ("train", "data.blocksize=3", "did you mean 'data.block_size'?"),
        ("train", "lr=1e-4", "did you mean 'optimizer.lr'?"),
        ("train", "+optimizer.amsgrd=true", "AdamW takes no 'amsgrd' (did you mean 'amsgrad'?)"),
        ("train", "scheduler.name=consine", "did you mean 'cosine'?"),
        ("train", "data.examples=block", "did you mean 'blocks'?"),
        ("train", "+model.config.n_layrs=3", "did you mean 'n_layers'?"),
        ("train", "data.train=txet.txt", "no such file or folder: txet.txt (did you mean 'text.txt'?)"),
        ("train", "resume=runs/frist", "did you mean 'runs/first'?"),
        ("evaluate", "run=runs/frist", "did you mean 'runs/first'?"),
        ("predict", "tetx=a", "did you mean 'text'?"),
        ("prepare", "data=imbd", "no data named 'imbd' (did you mean 'imdb'?)"),
    ],
)
def test_fault_36_what_is_mistyped_is_answered_with_what_was_meant(command, argument, said, terminal):
    run = terminal.folder / "runs" / "first"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 1\n")
    if command == "train":
        assert said in terminal.refuses_to_train(argument)
    else:
        assert said in terminal.refuses(command, argument)
