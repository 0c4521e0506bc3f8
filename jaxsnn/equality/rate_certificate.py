"""What a certificate of a rate-coded network says: gaps beside what theory allows (no jax)."""

from dataclasses import dataclass

from jaxsnn.equality.certificate import Certificate, LayerProof


@dataclass(frozen=True)
class RateProof(LayerProof):
    """Comparison of one layer's rates, or of a head's mean sums, with the normalised ANN.

    Of the fields of :class:`LayerProof`, ``integer`` counts neurons times images that are further
    off than theory allows, and ``end_to_end`` those whose activation in the normalised ANN is not
    that of the float ANN.

    Attributes:
        gap: largest ``|rate - activation|``; an activation ends at 1 spike a step.
        mean_gap: its mean over neurons and images.
        allowed: what theory allows the worst channel; rates lie between 0 and 1, so that 1 and more
            says nothing.
    """

    gap: float = 0.0
    mean_gap: float = 0.0
    allowed: float = 0.0

    def __str__(self) -> str:
        """One line."""
        beyond = f"; {self.integer:,} BEYOND" if self.integer else ""
        return (
            f"  {self.site}: {self.compared:,} compared; largest gap {self.gap:.3g}, mean "
            f"{self.mean_gap:.2g}, theory allows {self.allowed:.3g}{beyond}; "
            f"silent {self.silent:.1%}, saturated {self.saturated:.1%}"
        )


@dataclass(frozen=True)
class RateCertificate(Certificate):
    """The verdict on rates, always "approximate": they approach activations and never reach them.

    Of the fields of :class:`Certificate`, ``mismatches`` counts neurons further off than theory
    allows, ``predictions`` those that differ from the normalised ANN's, and ``float_mismatches``
    neurons whose activation in the normalised ANN is not that of the float ANN.

    Attributes:
        gap: the largest ``|rate - activation|`` of all layers of neurons.
    """

    gap: float = 0.0

    def __str__(self) -> str:
        """The verdict in a paragraph, and a line per layer."""
        lines = [
            self.verdict,
            f"against the normalised ANN {self.predictions:,} predictions differ; the largest gap "
            f"of a rate is {self.gap:.3g}, and {self.mismatches:,} neurons are further off than "
            "theory allows",
            f"against the float ANN {self.float_predictions:,} predictions differ, and "
            f"{self.float_mismatches:,} activations of the normalised ANN",
            *self.remarks,
        ]
        return "\n".join([*lines, *(str(layer) for layer in self.layers)])
