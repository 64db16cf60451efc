//! Error numbers, which exist at the edge to C only: inside, errors say what is wrong with which value.

use core::fmt;

use pnode_buddy::ZoneError;
use pnode_compress::store::ConfigError;
use pnode_core::registry::{
    AdoptError, AllocError, OfflineError, OnlineError, RegisterError, Stale, StorageError, UnregisterError,
};
use pnode_core::{Denied, DistanceError, FeatureError, FreeError, NodeIdTooLarge, RangeError};

use crate::kernel::NoMemory;
use crate::mapping::MappingError;
use crate::storage::ZoneStorageError;

/// An error number of the kernel, as a positive number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(u8);

impl Errno {
    /// Operation not permitted: a door is shut.
    pub const EPERM: Self = Self(1);
    /// Blocks were in motion on other CPUs: no shortage, try again.
    pub const EAGAIN: Self = Self(11);
    /// Out of memory, of metadata or of frames.
    pub const ENOMEM: Self = Self(12);
    /// Bad address: a null pointer where a value must be.
    pub const EFAULT: Self = Self(14);
    /// Busy: something holds on to it; try again later.
    pub const EBUSY: Self = Self(16);
    /// No such node.
    pub const ENODEV: Self = Self(19);
    /// An argument makes no sense.
    pub const EINVAL: Self = Self(22);
    /// No such call.
    pub const ENOTTY: Self = Self(25);
    /// No id, slot or space is left.
    pub const ENOSPC: Self = Self(28);
    /// There is no page.
    pub const ENODATA: Self = Self(61);
    /// The handle is from an earlier life of the node.
    pub const ESTALE: Self = Self(116);
    /// The structure found itself inconsistent.
    pub const EUCLEAN: Self = Self(117);

    /// The number as kernel functions return it: negative.
    pub const fn to_return(self) -> i32 {
        -(self.0 as i32)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errno {}", self.0)
    }
}

/// One error number for every value of an error.
macro_rules! always {
    ($($error:ty => $errno:ident),* $(,)?) => {$(
        impl From<$error> for Errno {
            fn from(_: $error) -> Self {
                Self::$errno
            }
        }
    )*};
}

always! {
    NoMemory => ENOMEM,
    NodeIdTooLarge => ENODEV,
    RangeError => EINVAL,
    MappingError => EINVAL,
    DistanceError => EINVAL,
    StorageError => EINVAL,
    ZoneError => EINVAL,
    FeatureError => EINVAL,
    Stale => ESTALE,
    AdoptError => EINVAL,
    FreeError => EINVAL,
    ConfigError => EINVAL,
}

impl From<ZoneStorageError> for Errno {
    fn from(error: ZoneStorageError) -> Self {
        match error {
            ZoneStorageError::NoMemory(_) => Self::ENOMEM,
            ZoneStorageError::Zone(_) => Self::EINVAL,
        }
    }
}

impl From<RegisterError> for Errno {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Unknown { .. } => Self::ENODEV,
            RegisterError::Busy { .. } => Self::EBUSY,
            RegisterError::Spent { .. } => Self::ENOSPC,
            RegisterError::Stale(_) => Self::ESTALE,
            _ => Self::EINVAL,
        }
    }
}

impl From<OnlineError> for Errno {
    fn from(error: OnlineError) -> Self {
        match error {
            OnlineError::Full { .. } => Self::ENOSPC,
            OnlineError::Stale(_) => Self::ESTALE,
            OnlineError::Overlaps { .. } | OnlineError::Draining { .. } => Self::EBUSY,
            _ => Self::EINVAL,
        }
    }
}

impl From<OfflineError> for Errno {
    fn from(error: OfflineError) -> Self {
        match error {
            OfflineError::StillUsed { .. } => Self::EBUSY,
            OfflineError::Stale(_) => Self::ESTALE,
            _ => Self::EINVAL,
        }
    }
}

impl From<UnregisterError> for Errno {
    fn from(error: UnregisterError) -> Self {
        match error {
            UnregisterError::Stale(_) => Self::ESTALE,
            _ => Self::EBUSY,
        }
    }
}

impl From<Denied> for Errno {
    fn from(error: Denied) -> Self {
        match error {
            Denied::Unknown { .. } | Denied::NotPrivate { .. } => Self::ENODEV,
            Denied::Draining { .. } | Denied::TooManyReferences { .. } => Self::EBUSY,
            Denied::Stale { .. } => Self::ESTALE,
            _ => Self::EPERM,
        }
    }
}

impl From<AllocError> for Errno {
    fn from(error: AllocError) -> Self {
        match error {
            AllocError::NoMemory { .. } => Self::ENOMEM,
            AllocError::Contended { .. } => Self::EAGAIN,
            AllocError::Unknown { .. } => Self::ENODEV,
            AllocError::Private { .. } | AllocError::NotForFrames { .. } => Self::EPERM,
            AllocError::Draining { .. } => Self::EBUSY,
            _ => Self::EINVAL,
        }
    }
}
