# %% [markdown]
# # From Python: train, evaluate, detect
#
# Run it as a script, or cell by cell in an editor that knows `# %%`. The first cell trains the smallest
# network for one epoch on the embedded digits, minutes on two cores: its detections are poor.

# %%
import sys

import numpy as np
import yaml

import detector

cfg, data = "yolov4-pacsp-n-mish.yaml", sys.argv[1] if len(sys.argv) > 1 else "digits.yaml"
settings = {"train.epochs": 1}
for word in sys.argv[2:]:  # a smaller run: data.size=64 ...
    key, _, value = word.partition("=")
    settings[key] = yaml.safe_load(value)
run = detector.train(cfg, data=data, out="runs/example", **settings)
print(f"{run.folder}: AP {run.ap:.3f}")

# %% [markdown]
# ## Detect
#
# Paths, folders, numpy arrays, PIL images, tensors, or lists of them. A numpy array has to say the order
# of its channels.

# %%
model = detector.Detector(run.folder, conf=0.001, max_detections=5)
image = np.full((240, 320, 3), 128, np.uint8)
found = model(image, channels="BGR")
print(len(found), found.boxes_xyxy.shape, found.scores.shape, found.labels.shape)
for each in found:
    print(each.name, round(each.score, 3), [round(x) for x in each.box_xyxy])

# %% [markdown]
# ## Use the detections

# %%
found.save("runs/example/found.jpg")
rows = found.to_coco(image_id=1)
lines = found.to_yolo()
crops = found.crop(margin=0.1)
assert len(rows) == len(lines.splitlines()) == len(crops) == len(found)

# %% [markdown]
# ## Evaluate
#
# COCO's AP on the validation split; `data=` takes another data set.

# %%
evaluation = detector.evaluate(run.folder)
print({name: round(value, 3) for name, value in evaluation.result.metrics.items()})
