//! Certificates, good ones and every kind of bad one, written byte by byte: the usual libraries
//! refuse to make most of what an attacker, or a careless authority, would present.

pub mod authority;
pub mod blueprint;
pub mod catalogue;
pub mod der;
pub mod key;
