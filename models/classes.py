"""The equipment classes, in the order of the network's channels, and what each one's unit is.

One detection is one unit: a chiller, a turbine package or a battery is the whole machine; a `dry_cooler` or a
`cooling_tower` is one **fan cell** of its array or bank, because the number of cells is what capacity follows,
an array can be larger than any window, and a cell is the same object in a 1 x 1 tower and in a 6 x 24 array.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class EquipmentClass:
    """One class of equipment as the detector knows it."""

    name: str
    unit: str
    """What one detection of this class is, for tables and legends."""
    coarsest_gsd_m: float
    """Coarsest native ground sampling distance at which the unit can be counted.

    Batteries are 1.7 m wide and 2 m apart, which 0.5 m samples just separate; 0.6 m is the coarsest imagery that the
    detector was trained and measured on. Past it the count is not given.
    """
    has_fans: bool

    def resolved_at(self, gsd_m: float) -> bool:
        """Whether the unit can be counted at a native GSD: a 0.6 m product is often delivered with 0.601 m pixels."""
        return gsd_m <= self.coarsest_gsd_m * 1.005


EQUIPMENT = (
    EquipmentClass("air_cooled_chiller", "chiller", 0.6, True),
    EquipmentClass("dry_cooler", "fan cell", 0.6, True),
    EquipmentClass("cooling_tower", "fan cell", 0.6, True),
    EquipmentClass("gas_turbine", "turbine package", 0.6, False),
    EquipmentClass("battery", "battery unit", 0.5, False),
)
LETTERING = EquipmentClass("roof_lettering", "painted word", 1.2, False)
"""Roof names are up to 40 m high: at 1.2 m, letters of 10 m and more are still legible. How often they are found was
measured at 0.6 m and finer only."""

OBJECT_CLASSES = tuple(c.name for c in EQUIPMENT)
"""Classes found as oriented boxes, in channel order."""
CLASSES = (*OBJECT_CLASSES, LETTERING.name)
"""All six classes."""
COARSEST_EQUIPMENT_GSD_M = max(c.coarsest_gsd_m for c in EQUIPMENT)
"""Past it a scene can show large lettering only."""
BY_NAME = {c.name: c for c in (*EQUIPMENT, LETTERING)}


def equipment_resolved_at(gsd_m: float) -> bool:
    """Whether units of any class can be counted at a native GSD; what coarser images show is large lettering alone."""
    return any(c.resolved_at(gsd_m) for c in EQUIPMENT)
