"""A reward as one might write it in an afternoon. `forksim audit examples/rewards/naive.py:naive` lies to it."""


def naive(text: str, workers: dict[str, str], truth: str) -> float:
    """Right answers, less a price for the words up to the answer."""
    right = f"<ANSWER>{truth}</ANSWER>" in text
    return right - len(text.split("</ANSWER>")[0].split()) / 20_000
