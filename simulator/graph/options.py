"""What besides the architecture decides which kernels run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.graph.documents import whole_mask
from simulator.graph.fusion import STACKS, TE_LOSS, Fusion
from simulator.graph.operators import Mask
from simulator.spec.documents import Documents
from simulator.spec.lora import Lora


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """What besides the architecture decides which kernels run."""

    batch: int  # sequences in a microbatch
    seq: int  # of a whole sequence
    dtype: str
    vocab_size: int  # padded
    flash: bool = True
    grad_bytes: float = 4.0
    fused_accumulation: bool = True
    window: int = 0  # keys a query sees in this layer; 0: all before it
    permute_fusion: bool = True  # experts: rows are gathered and summed by one kernel each
    router_fusion: bool = False  # experts: scores, choice and loss by one kernel each
    shared_expert_overlap: bool = False  # experts: shared ones beside the all-to-alls
    context: int = 1  # ranks that share each sequence
    causal: bool = True  # tokens see those before them only
    decoder_seq: int = 0  # of an encoder–decoder, whose encoder has ``seq``
    encoder_seq: int = 0  # where ``seq`` is the decoder's
    stack: str = "megatron"  # of memory-bound kernels: a key of STACKS
    loss_fusion: str = (
        ""  # cross entropy by fused kernels: the stack's own (native), Transformer Engine's (te)
    )
    loss_compiled: bool = True  # where the stack is compiled, so is the loss
    lora: Lora | None = None  # adapters are trained in place of the model's own weights
    documents: Documents | None = None  # that share each sequence and do not see each other

    @property
    def tokens(self) -> int:
        """A rank's tokens of a microbatch."""
        return self.batch * self.seq // self.context

    @property
    def of_decoder(self) -> GraphOptions:
        """On the decoder's side; as they are where there is one side only."""
        if not self.decoder_seq:
            return self
        return replace(self, seq=self.decoder_seq, encoder_seq=self.seq, decoder_seq=0)

    @property
    def of_encoder(self) -> GraphOptions:
        """On the encoder's side of a decoder layer."""
        return replace(self, seq=self.encoder_seq)

    @property
    def mask(self) -> Mask | None:
        """Of the documents in a sequence; ``None`` where it is one."""
        return None if self.documents is None else whole_mask(self.documents, self.seq, self.window)

    @property
    def fusion(self) -> Fusion:
        """What memory-bound operations take."""
        fusion = STACKS[self.stack]
        if self.stack == "compiled" and not self.loss_compiled:
            fusion = replace(fusion, loss=STACKS["eager"].loss)
        fused_loss = TE_LOSS if self.loss_fusion == "te" else fusion.fused_loss
        return replace(fusion, loss=fused_loss) if self.loss_fusion else fusion
