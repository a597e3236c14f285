"""Losses: functions of two photos or of a discriminator's logits, in float32, photos on the [0,1] scale."""
