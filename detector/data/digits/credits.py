"""Credits of the embedded `digits` data set: every photograph, its author and its licence.

Facts are those stated by the packages themselves (scikit-image's `skimage.data` docstrings,
scikit-learn's `datasets/images/README.txt`). Packaged pictures without an explicit free licence
(moon, page, coins, the Middlebury motorcycle, ...) are deliberately not used.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph inside an installed wheel.

    Attributes:
        package: import name of the package that carries it.
        path: file, relative to the package's folder.
        title: what it shows.
        author: the photographer or the institution to credit.
        licence: the licence as stated by the package.
        source: where the original is published.
    """

    package: str
    path: str
    title: str
    author: str
    licence: str
    source: str

    @property
    def name(self) -> str:
        """The bare file name, such as "china.jpg"."""
        return self.path.rsplit("/", 1)[-1]


_CC0 = "CC0"
_CC_BY = "[CC BY 2.0](https://creativecommons.org/licenses/by/2.0/)"
_PUBLIC = "public domain"
_SKIMAGE = "scikit-image"

PHOTOS = (
    Photo(
        "sklearn",
        "datasets/images/china.jpg",
        "Pagoda in Beijing",
        "danielbuechele",
        _CC_BY,
        "[Flickr](https://www.flickr.com/photos/danielbuechele/6061409035/)",
    ),
    Photo(
        "sklearn",
        "datasets/images/flower.jpg",
        "Dahlia",
        "vultilion",
        _CC_BY,
        "[Flickr](https://www.flickr.com/photos/vultilion/6056698931/)",
    ),
    Photo(
        "skimage",
        "data/astronaut.png",
        "Eileen Collins",
        "NASA",
        _PUBLIC,
        "[NASA Great Images](https://flic.kr/p/r9qvLn)",
    ),
    Photo("skimage", "data/chelsea.png", "Chelsea the cat", "Stefan van der Walt", _CC0, _SKIMAGE),
    Photo(
        "skimage",
        "data/coffee.png",
        "Coffee cup, courtesy of Pikolo Espresso Bar",
        "Rachel Michetti",
        _CC0,
        _SKIMAGE,
    ),
    Photo(
        "skimage",
        "data/rocket.jpg",
        "Launch of DSCOVR on Falcon 9",
        "SpaceX",
        _PUBLIC,
        "[Flickr](https://www.flickr.com/photos/spacexphotos/16511594820/)",
    ),
    Photo(
        "skimage",
        "data/hubble_deep_field.jpg",
        "Hubble eXtreme Deep Field",
        "NASA",
        _PUBLIC,
        "[HubbleSite](http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/)",
    ),
    Photo(
        "skimage",
        "data/retina.jpg",
        "Fundus of a human eye",
        "Mikael Haggstrom",
        _CC0,
        "[Wikimedia Commons]"
        "(https://commons.wikimedia.org/wiki/File:Fundus_photograph_of_normal_left_eye.jpg), "
        "[doi:10.15347/wjm/2014.008](https://doi.org/10.15347/wjm/2014.008)",
    ),
    Photo("skimage", "data/camera.png", "Cameraman", "Lav Varshney", _CC0, _SKIMAGE),
    Photo(
        "skimage",
        "data/brick.png",
        "Brick wall",
        "CC0Textures (Bricks25)",
        _CC0,
        "[CC0Textures](https://cc0textures.com/view.php?tex=Bricks25)",
    ),
    Photo(
        "skimage",
        "data/grass.png",
        "Grass",
        "linolafett",
        _CC0,
        "[DeviantArt](https://www.deviantart.com/linolafett/art/Grass-01-434853879)",
    ),
    Photo(
        "skimage",
        "data/gravel.png",
        "Gravel",
        "CC0Textures (Gravel04)",
        _CC0,
        "[CC0Textures](https://cc0textures.com/view.php?tex=Gravel04)",
    ),
)


def _photo_line(photo: Photo) -> str:
    wheel = {"sklearn": "scikit-learn", "skimage": "scikit-image"}[photo.package]
    return (
        f"* `{photo.name}` ({wheel}): {photo.title}. Photograph: {photo.author}. "
        f"Licence: {photo.licence}. Source: {photo.source}."
    )


CREDITS = "\n".join(
    [
        "# Credits of the `digits` data set",
        "",
        "Handwritten digits: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*,",
        "UCI Machine Learning Repository, 1998,",
        "[doi:10.24432/C50P49](https://doi.org/10.24432/C50P49),",
        "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/); the test part, as packaged by",
        "scikit-learn. Changed here: enlarged, coloured, given a dark edge, turned and placed on",
        "the photographs.",
        "",
        "Photographs, as packaged by scikit-image and scikit-learn. Changed here: cropped, mirrored,",
        "rescaled to 320 x 320 pixels and covered with digits.",
        "",
        *map(_photo_line, PHOTOS),
        "",
    ]
)
"""Markdown, also written as CREDITS.md into the generated folder."""
