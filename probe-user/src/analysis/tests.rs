//! Stories in packets and rows, and what must come out of them.

mod make;
mod rows;
mod several;
mod traffic;
mod verdicts;
