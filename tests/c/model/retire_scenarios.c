#include "model.h"
const model_scenario model_retire_scenarios[] = {{.name = NULL}};
