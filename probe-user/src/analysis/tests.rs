//! Stories in packets and rows, and what must come out of them.

mod make;
mod rows;
mod several;
mod split;
mod traffic;
mod verdicts;
