"""The eligibility rules, one module each; see ``refit.eligibility.Rule`` for the protocol.

The standard ones are listed in ``refit.eligibility.STANDARD_RULES``. Any other module in this
package, and any rule of another package, applies when ``features.market.rules`` names it.
"""
