"""From a push to the champion, drawn: the canary's weight by the second, and what was seen on the way."""

from __future__ import annotations

import io
from collections.abc import Mapping

from stories import Story

from plumbline.display import figures


def drawn(story: Story, moments: Mapping[str, float]) -> str:
    """An SVG of a canary's weight from its push on; `moments` (monotonic seconds) are named along its time."""
    last = max(*moments.values(), story.ended) - story.begun
    weights = [seen for seen in story.weights if seen.at >= story.begun]
    times = [0.0, *(seen.at - story.begun for seen in weights), last]
    values = [0, *(seen.canary for seen in weights)]
    with figures.style() as plt:
        figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
        axes.step(times, [*values, values[-1]], where="post", color=figures.MODEL, lw=2)
        for number, (name, at) in enumerate(sorted(moments.items(), key=lambda told: told[1])):
            axes.axvline(at - story.begun, color=figures.MUTED, lw=1, ls=":")
            axes.text(at - story.begun, 104 + 7 * (number % 3), f" {name}", fontsize=8, color=figures.INK)
        axes.set(xlim=(0, last * 1.12), ylim=(-4, 125), yticks=[0, 10, 25, 50, 100])
        axes.set(xlabel="seconds since `git push`", ylabel="canary's weight, %")
        made = io.StringIO()
        figure.savefig(made, format="svg", metadata={"Date": None})
        plt.close(figure)
    return made.getvalue()
