//! Moving: after random commands all that can be read of one store is read of the one that took its rows.

use super::agreement::Compared;
use super::*;
use crate::model::rules::random::World;

