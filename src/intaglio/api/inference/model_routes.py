"""The routes that list models, their schemas, tasks and authors."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from intaglio.api.catalogue import HOSTED, HostedModel, serving_advice
from intaglio.api.http.envelope import PageInfo, success
from intaglio.api.http.query import check_spelling, flag, integer
from intaglio.api.inference.model_cards import TEXT_GENERATION, Author, ModelCard, ModelSchemas
from intaglio.api.inference.schema import RunSchema
from intaglio.api.state import ServerState
from intaglio.errors import BadInputError

MAX_PER_PAGE = 1000
_SEARCH_PARAMETERS = ("search", "task", "author", "source", "hide_experimental", "page", "per_page")


def model_routes(state: ServerState, schema: RunSchema) -> APIRouter:
    """models/search, models/schema, tasks/search, authors/search."""
    router = APIRouter()

    @router.get("/ai/models/search", operation_id="search_models")
    async def search_models(request: Request, account: str) -> Response:
        return models_page(state, request.query_params)

    @router.get("/ai/models/schema", operation_id="read_model_schemas")
    async def model_schema(request: Request, account: str) -> Response:
        model = request.query_params.get("model")
        if not model:
            check_spelling(request.query_params, "model")
            raise BadInputError("the query parameter 'model' is missing")
        if model not in state.models and model not in HOSTED:
            raise state.no_such_model(model)
        return success(ModelSchemas(schema.input, schema.output))

    @router.get("/ai/tasks/search", operation_id="search_tasks")
    async def search_tasks(account: str) -> Response:
        return success([TEXT_GENERATION])

    @router.get("/ai/authors/search", operation_id="search_authors")
    async def search_authors(account: str) -> Response:
        return success([Author(name) for name in sorted({card.author for card in model_cards(state)})])

    return router


def models_page(state: ServerState, query: Mapping[str, str]) -> Response:
    """One page of the models that match the query. Raises BadInputError."""
    check_spelling(query, *_SEARCH_PARAMETERS)
    page = integer(query, "page", default=1, low=1)
    per_page = integer(query, "per_page", default=100, low=1, high=MAX_PER_PAGE)
    hides_beta = flag(query, "hide_experimental")
    found = [card for card in model_cards(state) if _matches(card, query) and not (hides_beta and card.beta)]
    shown = found[(page - 1) * per_page : page * per_page]  # empty past the end: SDKs ask for pages until one is empty
    info = PageInfo(page, per_page, len(shown), len(found))
    return success([card.entry() for card in shown], result_info=info)


def model_cards(state: ServerState) -> list[ModelCard]:
    """Every listed model: the served ones, then those of the catalogue that have no weights here."""
    cards = [
        ModelCard(
            name=name,
            description=f"{_purpose(name)}, served here ({llm.config.num_layers} layers, hidden size "
            f"{llm.config.hidden_size}).",
            context_window=llm.window,
            created_at=state.started_at,
            pretrained=llm.is_pretrained,
        )
        for name, llm in state.models.items()
    ]
    return cards + [_card_without_weights(state, one) for one in HOSTED.values() if one.name not in state.models]


def _purpose(name: str) -> str:
    return HOSTED[name].description if name in HOSTED else "Gemma text generation with LoRA adapters"


def _card_without_weights(state: ServerState, hosted: HostedModel) -> ModelCard:
    answering = state.stand_ins.get(hosted.name)
    how = f"{answering} answers in its place" if answering else serving_advice(hosted)
    return ModelCard(
        name=hosted.name,
        description=f"{hosted.description}. This server has no weights for it. {how}.",
        context_window=state.models[answering].window if answering else hosted.context_window,
        created_at=state.started_at,
        has_weights=False,
        stand_in=answering,
        pretrained=answering is not None and state.models[answering].is_pretrained,
    )


def _matches(card: ModelCard, query: Mapping[str, str]) -> bool:
    search = query.get("search", "").lower()
    wanted = {"task": TEXT_GENERATION.name, "author": card.author, "source": str(card.source)}
    return (search in card.name.lower() or search in card.description.lower()) and all(
        query.get(name, value).lower() in ("", value.lower()) for name, value in wanted.items()
    )
