"""Co-registration: how far the scenes of a site lie apart on the ground, measured on ground that did not change.

Orthorectified imagery of different dates is placed a few metres apart, which is as much as rows of equipment are. The
shift of each scene against the site's reference scene is measured, stored with its accuracy, and never baked in:
polygons stay where their own scene puts them.
"""

from dataclasses import dataclass

__all__ = ["Shift"]


@dataclass(frozen=True)
class Shift:
    """How far a scene shows the ground from where the site's reference scene shows it.

    A position in the scene minus the shift is the position in the reference scene.
    """

    east_m: float
    north_m: float
    """Along the axes of `crs`."""
    accuracy_m: float
    """Distance within which the true shift lies in nine cases of ten; 0 for the reference scene itself."""
    reference: str
    """Id of the reference scene."""
    crs: str
    """Projected CRS, such as `EPSG:32615`; one for all scenes of a site."""
