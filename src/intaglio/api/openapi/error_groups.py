"""Which errors a route can raise, in the groups that routes share."""

from __future__ import annotations

from intaglio import errors as tree

EVERYWHERE = (tree.AuthenticationError, tree.EngineError)
IN_AN_ACCOUNT = (*EVERYWHERE, tree.IdentifierError, tree.RouteError)
OF_A_BODY = (tree.EmptyBodyError, tree.BadInputError, tree.RequestTooLargeError)
OF_A_MODEL = (tree.ModelNotFoundError, tree.ModelWithoutWeightsError)
OF_A_READ = (tree.DatabaseError,)  # of what stands in a database
OF_A_CHANGE = (*OF_A_READ, tree.StorageFullError)
OF_AN_ADAPTER = (tree.FinetuneNotFoundError, tree.FinetuneNotReadyError, tree.FinetuneError, *OF_A_READ)
OF_A_RUN = (
    *OF_A_BODY,
    *OF_A_MODEL,
    *OF_AN_ADAPTER,
    tree.ChatError,
    tree.GrammarError,
    tree.ContextLengthError,
    tree.CapacityError,
    tree.EngineDeadError,
)
OF_A_BATCH = (tree.BatchNotFoundError, tree.BatchQueueFullError, tree.StorageFullError)
