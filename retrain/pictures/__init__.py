"""Pictures of a run: the genotype and its history, and a trained network at work on an image."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_exports

if TYPE_CHECKING:
    from retrain.pictures.config import PictureConfig
    from retrain.pictures.drawing import PICTURES, draw_pictures
    from retrain.pictures.heat_maps import class_probabilities, draw_heat_maps
    from retrain.pictures.operations import draw_inhibition, draw_smoothing, see_inhibition, smoothing_coefficients
    from retrain.pictures.receptive_field import draw_field, effective_field

__getattr__, __dir__, __all__ = lazy_exports(__name__)
