//! What became of one need.

/// How a need is served.
#[derive(Clone, Debug, Default)]
pub struct Hook {
    /// Name of the way, `None` if no way works.
    pub way: Option<&'static str>,
    /// What this way cannot see.
    pub limit: Option<&'static str>,
    /// Better ways that were tried and why they do not work.
    pub refused: Vec<(&'static str, String)>,
}

impl Hook {
    /// Why no way works, by the last that was tried.
    pub fn why_not(&self) -> &str {
        self.refused.last().map_or("this choice of hooks has none", |(_, why)| why.as_str())
    }
}
