//! Tokens and private keys, kept from every output by their type.

/// A token or key. It has neither `Debug` nor `Display`, so that nothing that holds one can be printed by accident.
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes it over.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into().into_boxed_slice())
    }

    /// The bytes themselves: for headers, the key parser and comparisons only.
    pub(crate) const fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the writes, which nothing reads.
        std::hint::black_box(&self.0);
    }
}
