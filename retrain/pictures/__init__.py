"""Pictures of a run: what was found and how it changed, and what a trained network does with an image."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from retrain.pictures.config import PictureConfig
    from retrain.pictures.drawing import PICTURES, draw_pictures
    from retrain.pictures.heat_maps import class_probabilities, draw_heat_maps
    from retrain.pictures.operations import draw_inhibition, draw_smoothing, see_inhibition, smoothing_coefficients
    from retrain.pictures.receptive_field import draw_field, effective_field

_EXPORTS = {
    "PICTURES": "retrain.pictures.drawing",
    "PictureConfig": "retrain.pictures.config",
    "class_probabilities": "retrain.pictures.heat_maps",
    "draw_field": "retrain.pictures.receptive_field",
    "draw_heat_maps": "retrain.pictures.heat_maps",
    "draw_inhibition": "retrain.pictures.operations",
    "draw_pictures": "retrain.pictures.drawing",
    "draw_smoothing": "retrain.pictures.operations",
    "effective_field": "retrain.pictures.receptive_field",
    "see_inhibition": "retrain.pictures.operations",
    "smoothing_coefficients": "retrain.pictures.operations",
}

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
__all__ = sorted(_EXPORTS)
