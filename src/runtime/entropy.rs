//! Chance, from the kernel. Whatever the protocol needs of it comes in as an input.

/// 64 random bits.
///
/// # Panics
/// When the kernel has no random bits to give, which does not happen once it has started.
pub fn word() -> u64 {
    getrandom::u64().expect("the kernel gives random bits once it has started")
}

/// 128 random bits.
pub fn wide() -> u128 {
    (u128::from(word()) << 64) | u128::from(word())
}
