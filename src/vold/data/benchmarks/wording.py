"""Words that several benchmarks are asked and judged with."""

from __future__ import annotations

from vold.data.benchmarks.benchmark import Judging, Prompt

QUERY_THEN_BOX = (
    "{query}\n"
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple '
    'choice question, only one letter is allowed in the "\\boxed{}".'
)
"""A row's own prompt, and a box asked for in MATH-Vision's words."""
QUESTION_THEN_BOX = (
    "{question}\n"
    "{options}\n"
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple '
    'choice question, only one letter is allowed in the "\\boxed{}".'
)
ALONE_THEN_BOX = (
    "{question}\n"
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple '
    'choice question, only one letter is allowed in the "\\boxed{}".'
)
STEP_BY_STEP = "{question}\nPlease reason step by step, and put your final answer within \\boxed{}."
WRITTEN = Prompt(without_options=STEP_BY_STEP)
"""Text benchmarks have no prompt of their own; these are the words that Qwen's models are evaluated with."""
MCQ_QUESTION = "Question: {question}\nOptions:\n{options}\nPlease select the correct answer from the options above. \n"
"""VLMEvalKit's multiple-choice question."""

MCQ = Judging(
    name="mcq",
    one_option=True,
    no_option=True,
    prompt=(
        "You are an AI assistant who will help me to match an answer with several options of a single-choice "
        "question. You are provided with a question, several options, and an answer, and you need to find "
        "which option is most similar to the answer. If the meaning of all options are significantly different "
        "from the answer, output Z. Your should output a single uppercase character in A, B, C, D (if they are "
        "valid options), and Z. \n"
        "Example 1: \n"
        "Question: What is the main object in image?\n"
        "Options: A. teddy bear B. rabbit C. cat D. dog\n"
        "Answer: a cute teddy bear\n"
        "Your output: A\n"
        "Example 2: \n"
        "Question: What is the main object in image?\n"
        "Options: A. teddy bear B. rabbit C. cat D. dog\n"
        "Answer: Spider\n"
        "Your output: Z\n"
        "Example 3: \n"
        "Question: {question}?\n"
        "Options: {options}\n"
        "Answer: {response}\n"
        "Your output: "
    ),
)
"""VLMEvalKit's matching of an answer with the options, byte for byte (Apache-2.0; utils/multiple_choice.py)."""
