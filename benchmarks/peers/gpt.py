"""The model of tools/demo_trainer/gpt.h, with the same shapes."""

import torch
import torch.nn.functional as functional
from torch import nn


class Block(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = x + self.dropout(self.attend(self.attention_norm(x)))
        return x + self.dropout(self.narrow(functional.gelu(self.widen(self.feed_norm(x)))))

    def attend(self, x):
        batch, length, width = x.shape
        # (batch, length, 3, heads, width / heads) -> 3 x (batch, heads, length, width / heads)
        query, key, value = self.query_key_value(x).view(
            batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.projection(mixed.transpose(1, 2).reshape(batch, length, width))


class Gpt(nn.Module):
    def __init__(self, vocabulary, context, layers, heads, width, dropout=0.1):
        super().__init__()
        self.characters = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.02)

    def forward(self, x):
        x = self.dropout(self.characters(x) + self.positions(torch.arange(x.shape[1])))
        return self.head(self.norm(self.blocks(x)))
