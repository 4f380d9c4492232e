"""Settings of `base pretrain`."""

from pydantic import Field, model_validator

from recmerge.config.loader import Settings


class BaseConfig(Settings):
    """A small Qwen2-architecture language model from catalogue text."""

    catalogues: dict[str, str] = Field(json_schema_extra={"path": True}, description="domain: item table (item_id, title, brand, category)")
    vocab_size: int = Field(4096, ge=300)
    hidden_size: int = Field(160, ge=8)
    layers: int = Field(3, ge=1)
    heads: int = Field(4, ge=1)
    kv_heads: int = Field(2, ge=1)
    intermediate_size: int = Field(448, ge=8)
    max_length: int = Field(256, ge=16, description="tokens of a training sequence")
    max_title_chars: int = Field(512, ge=16)
    max_title_tokens: int | None = Field(None, ge=1, description="cut longer titles; null: titles stay whole")
    shelf_share: float = Field(0.7, ge=0, le=1, description="shelves of titles of one category or brand; the rest are of random titles")
    behaviour: list[str] = Field(
        default_factory=list, description="built domains whose buyers' training events are read too; no such domain can be a target or source later"
    )
    behaviour_share: float = Field(0.5, gt=0, lt=1, description="sequences that are a buyer's history, where behaviour names domains")
    max_history: int = Field(11, ge=2, description="titles of such a sequence at most")
    steps: int = Field(1500, ge=1)
    batch_size: int = Field(32, ge=1)
    micro_batch_size: int = Field(8, ge=1, description="sequences that one core computes at a time")
    learning_rate: float = Field(4e-3, gt=0, description="peak rate of AdamW, for embeddings and norms")
    muon_rate: float = Field(2e-2, gt=0, description="peak rate of Muon, for all other matrices")
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, description="of Muon's matrices")
    valid_share: float = Field(0.02, gt=0, lt=0.5, description="items whose titles are held out")
    dtype: str = Field("bfloat16", pattern="^(bfloat16|float32)$", description="of the saved weights; training is in float32")
    seed: int = Field(42, ge=0)
    data_note: str = Field("", description="where the data is from and under which licence, for the model card")

    @model_validator(mode="after")
    def _heads_divide(self) -> "BaseConfig":
        if both := sorted(set(self.behaviour) & set(self.catalogues)):
            raise ValueError(f"domain '{both[0]}' stands under catalogues and under behaviour; a domain of behaviour brings its titles along")
        if self.hidden_size % self.heads or self.heads % self.kv_heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of heads {self.heads}, and heads of kv_heads {self.kv_heads}")
        return self
