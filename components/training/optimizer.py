"""Adam with one operation for each weight."""

import tensorflow as tf


class FusedAdam(tf.keras.optimizers.Adam):
    """Adam whose update of a weight is one operation instead of ten.

    The towers have many small weights, so that starting operations took longer than they did.

    Args:
        learning_rate: At first.
        weight_decay: Share of every weight, times the rate, that a step takes off (AdamW).
    """

    def __init__(self, learning_rate: float, weight_decay: float = 0.0) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay or None, jit_compile=False)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Update one weight with its gradient, of the same shape."""
        place = self._index_dict[self._var_key(variable)]
        steps = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].handle,
            v=self._velocities[place].handle,
            beta1_power=tf.pow(self.beta_1, steps),
            beta2_power=tf.pow(self.beta_2, steps),
            lr=self.learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
