//! What the machine makes of facts, one module per question.

mod bounds;
mod kernel_cases;
mod lines;
mod make;
mod order;
mod verdicts;
