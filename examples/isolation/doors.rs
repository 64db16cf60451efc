//! Mistakes that a host could build around the registry, each of which lets private memory out.
//!
//! None of them is possible inside it; they are here so that this program shows that it would see them.

/// A mistake, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Closed,
    DriverForgetsPrivate,
    SpillsWhenFull,
    PreferenceIsConsent,
    MaskIsConsent,
    ServiceUsesOwnersGrant,
    NeighboursFrames,
    RightsById,
    BindIsConsent,
    NumberIsConsent,
}

/// The doors that can be opened, by number from 1.
pub(crate) const DOORS: [(Door, &str); 9] = [
    (Door::DriverForgetsPrivate, "a driver onlines its device as ordinary memory"),
    (Door::SpillsWhenFull, "a host serves requests by an owner's grant when ordinary memory is full"),
    (Door::PreferenceIsConsent, "a host takes the preference for a private node as the right to it"),
    (Door::MaskIsConsent, "a host lets a nodemask add the private nodes that it names"),
    (Door::ServiceUsesOwnersGrant, "a service that was denied goes on with the owner's grant"),
    (Door::NeighboursFrames, "a zone hands out the frames of its neighbour when its own are used"),
    (Door::RightsById, "a driver that gave its node up is still served, because its id is owned again"),
    (Door::BindIsConsent, "a host takes a user's bind for the owner's consent"),
    (Door::NumberIsConsent, "a host hands out any block that is asked for by its number"),
];
