"""The error tree: few named classes whose message tells an operator what to do.

TrimtabError
├── InvalidInput             what was given cannot be used; names the field or row, and the remedy   (HTTP 400)
│   ├── ModelError           rows that do not make a cluster model
│   └── RulesError           rules that nobody can obey or understand
├── Forbidden                the caller has not the role that this needs                            (HTTP 403)
├── NotFound                 no such record                                                          (HTTP 404)
├── Conflict                 name taken, record claimed by somebody else                             (HTTP 409)
│   └── IllegalTransition    the state machine has no such edge
├── CloudError               the cloud refused or did not answer
│   ├── CloudNotFound        the cloud has no such server, host or service
│   ├── CloudConflict        the cloud refuses now: busy, wrong state, no room
│   └── CloudUnavailable     the cloud cannot be reached; asking again later may help
├── DatasourceError          measurements cannot be read
├── StrategyError            a strategy could not run on this snapshot
├── PlanError                a candidate cannot be turned into a safe plan
├── ActionSkipped            an action no longer applies
└── ActionFailed             an action was tried and did not succeed
"""


class TrimtabError(Exception):
    """Root of everything this project raises on purpose."""


class InvalidInput(TrimtabError):
    """What was given cannot be used; the message names the field or row and the remedy."""


class ModelError(InvalidInput):
    """Tables that do not make a cluster model."""


class RulesError(InvalidInput):
    """Rules that nobody can obey or understand; the message names the rule, the place in it and the remedy."""


class Forbidden(TrimtabError):
    """The caller has not the role that this needs; the message names the rule."""


class NotFound(TrimtabError):
    """There is no such record."""


class Conflict(TrimtabError):
    """The record exists already or belongs to somebody else."""


class IllegalTransition(Conflict):
    """The state machine has no such edge."""


class CloudError(TrimtabError):
    """The cloud refused or did not answer."""


class CloudNotFound(CloudError):
    """The cloud has no such server, host or service."""


class CloudConflict(CloudError):
    """The cloud refuses now: busy, wrong state, no room."""


class CloudUnavailable(CloudError):
    """The cloud cannot be reached at the moment; asking again later may help."""


class DatasourceError(TrimtabError):
    """Measurements cannot be read."""


class StrategyError(TrimtabError):
    """A strategy could not run on this snapshot."""


class PlanError(TrimtabError):
    """A candidate cannot be turned into a safe plan."""


class ActionSkipped(TrimtabError):
    """An action no longer applies; the message becomes its status."""


class ActionFailed(TrimtabError):
    """An action was tried and did not succeed; the message becomes its status."""
