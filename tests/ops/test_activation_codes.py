"""Python and C++ number the fused activations alike."""

import re
from pathlib import Path

from detector.ops import ActivationCode

HEADER = Path(__file__).parents[2] / "csrc" / "activations.h"


def test_python_and_cpp_have_the_same_codes():
    (members,) = re.findall(r"enum class Activation : int64_t \{([^}]*)\}", HEADER.read_text())
    codes = dict(re.findall(r"k(\w+) = (\d+)", members))
    assert len(codes) == members.count(",") + 1, "every enumerator has an explicit number"
    in_python = {code.name.title().replace("_", ""): str(int(code)) for code in ActivationCode}
    assert in_python == codes
