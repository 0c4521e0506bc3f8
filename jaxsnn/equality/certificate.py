"""What a certificate says: verdict, layers, the first neuron that differs (no jax)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One neuron that differs.

    Attributes:
        site: layer.
        image: number of the image in the data set.
        position: index of the neuron, (row, column, channel) or (unit,).
        spiking: its final net spike count, and
        reference: the level of the reference.
    """

    site: str
    image: int
    position: tuple[int, ...]
    spiking: int
    reference: int

    def __str__(self) -> str:
        """Place and both values."""
        return (
            f"{self.site}, image {self.image}, neuron {self.position}: spike count "
            f"{self.spiking}, reference {self.reference}"
        )


@dataclass(frozen=True)
class LayerProof:
    """Comparison of one layer over all images; counts are of neurons times images.

    Attributes:
        site: its name.
        compared: neurons times images.
        integer: net counts that differ from the integer ANN.
        end_to_end: net counts that differ from the float ANN.
        origins: levels that differ from the float ANN's when fed with its activations.
        ties: origins that lie at a boundary up to rounding: of float32 in the ANN, of the
            thresholds' grid in the spiking network.
        furthest: largest distance of an origin from its boundary, in quantisation steps.
        silent: share of neurons that never spike on any image.
        saturated: share of neurons times images at the highest count.
        last_spike_step: last step (from 1) with a spike here, 0 if silent.
        cut: levels of the float ANN above the highest count, where the spiking network stops.
    """

    site: str
    compared: int = 0
    integer: int = 0
    end_to_end: int = 0
    origins: int = 0
    ties: int = 0
    furthest: float = 0.0
    silent: float = 0.0
    saturated: float = 0.0
    last_spike_step: int = 0
    cut: int = 0

    def __str__(self) -> str:
        """One line."""
        return (
            f"  {self.site}: {self.compared:,} compared; differ: {self.integer:,} integer, "
            f"{self.end_to_end:,} float ({self.origins:,} origins, {self.ties:,} ties); "
            f"silent {self.silent:.1%}, saturated {self.saturated:.1%}"
        )


@dataclass(frozen=True)
class Certificate:
    """The verdict.

    Attributes:
        equality: "exact" (every net count equals the integer ANN's after one step), "exact after
            settling" (from ``settled_step`` on), or "approximate".
        settled_step: last step in which any neuron spiked, over all images.
        images: number of images compared.
        steps: steps simulated, of the longest batch where each ends with its own silence.
        mismatches: differing neurons against the integer ANN, and
        predictions: differing predictions against it.
        float_mismatches: differing neurons against the float ANN, and
        float_predictions: differing predictions against it.
        origins_are_ties: every origin against the float ANN is a tie.
        first_difference: the first differing neuron in layer order against the integer ANN, else
            against the float ANN where an origin is no tie, else None.
        layers: one proof per layer of neurons, then one per head (summed readouts, logits).
        settled_steps: last step in which any neuron spiked, image by image.
        unsettled_images: images that still spike in the last step and have a neuron whose net
            count is not its level in the integer ANN.
        unsettled: share of all neurons times images that are such neurons of such images.
        given_predictions: predictions that differ from those of the network as it was given to
            conversion (:func:`jaxsnn.convert`); None: it was not given.
        rounded_to_zero: sites all of whose weights conversion has rounded to zero, although those
            of the trained network are not: both references have the same zeros, and agree.
    """

    equality: str
    settled_step: int
    images: int
    steps: int
    mismatches: int
    predictions: int
    float_mismatches: int
    float_predictions: int
    origins_are_ties: bool
    first_difference: Difference | None
    layers: tuple[LayerProof, ...]
    settled_steps: tuple[int, ...] = ()
    unsettled_images: int = 0
    unsettled: float = 0.0
    rounded_to_zero: tuple[str, ...] = ()
    given_predictions: int | None = None

    @property
    def verdict(self) -> str:
        """The verdict, what it was found on, and what the network as given says, in one line."""
        return (
            f"{self.equality}: {self.images:,} images, {self.steps} steps, "
            f"last spike in step {self.settled_step}; network as given: {self._differing}"
        )

    @property
    def remarks(self) -> list[str]:
        """Lines on what makes a verdict worth less than it says."""
        if not self.rounded_to_zero:
            return []
        return [
            f"ROUNDED TO ZERO: all weights of {', '.join(self.rounded_to_zero)}; nothing that such "
            "a layer is shown changes what it gives; rescale it, or take finer weights"
        ]

    @property
    def _differing(self) -> str:
        """How many predictions differ from those of the network as given."""
        if self.given_predictions is None:
            return "not given"
        return f"{self.given_predictions:,} predictions differ"

    @property
    def cut(self) -> int:
        """Levels of the float ANN above the highest count, in all layers."""
        return sum(layer.cut for layer in self.layers)

    def __str__(self) -> str:
        """The verdict in a paragraph, and a line per layer."""
        ties = "all ties" if self.origins_are_ties else "NOT all ties"
        lines = [
            self.verdict,
            f"against the integer ANN {self.mismatches:,} neurons and {self.predictions:,} "
            f"predictions differ",
            f"against the float ANN {self.float_mismatches:,} neurons and "
            f"{self.float_predictions:,} predictions differ (origins: {ties})",
        ]
        lines += self.remarks
        if self.unsettled_images:
            lines.append(
                f"not settled after {self.steps} steps: {self.unsettled:.3%} of neurons, "
                f"on {self.unsettled_images:,} images; simulate more steps"
            )
        if self.cut:
            lines.append(
                f"{self.cut:,} levels of the float ANN lie above the highest count, which cuts "
                "them; raise highest"
            )
        if self.first_difference is not None:
            lines.append(f"first difference: {self.first_difference}")
        return "\n".join([*lines, *(str(layer) for layer in self.layers)])
