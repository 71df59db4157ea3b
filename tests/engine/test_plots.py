import cv2

from detector.engine import RunPlots, ValBatchPicture, plot_history
from tests.engine.small_trainer import make

ROWS = [
    {"epoch": 1, "loss_box": 0.3, "loss_obj": 0.2, "lr": 0.01, "seconds": 1.0},
    {"epoch": 2, "loss_box": 0.2, "loss_obj": 0.1, "lr": 0.005, "AP": 0.3, "AP50": 0.5},
]


def test_history_is_drawn_without_missing_values(real_figures, tmp_path):
    path = tmp_path / "curves.png"
    plot_history(path, ROWS[:1])
    without = cv2.imread(str(path))
    plot_history(path, ROWS)
    with_ap = cv2.imread(str(path))
    assert without.shape == with_ap.shape
    assert (without != with_ap).any()
    plot_history(path, [])
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_labels_once_and_curves_at_each_evaluation(real_figures, tmp_path):
    drawn = []

    def draw(path):
        drawn.append(path)
        path.write_bytes(b"drawn")

    def charts():
        return RunPlots(tmp_path / "curves.png", tmp_path / "labels.png", draw)

    make(observers=[charts()]).run()
    assert cv2.imread(str(tmp_path / "curves.png")).shape[2] == 3
    make(observers=[charts()]).run()
    assert drawn == [tmp_path / "labels.png"]


def test_val_pictures_at_each_evaluation(tmp_path, rng):
    sheet = rng.integers(0, 255, (20, 30, 3), dtype="uint8")
    shown = []
    picture = ValBatchPicture(tmp_path / "val.png", lambda: sheet, lambda *each: shown.append(each))
    trainer = make(observers=[picture])  # evaluates after epochs 2 and 3
    trainer.run()
    assert (cv2.imread(str(tmp_path / "val.png"))[..., ::-1] == sheet).all()
    assert [(t, name) for t, name, _ in shown] == [(trainer, "val")] * 2
