variables {
  bucket  = "plumbline-test"
  key_arn = "arn:aws:kms:eu-central-1:111122223333:key/lake"
}

run "a_predictor_reads_models_and_writes_what_it_answered" {
  assert {
    condition = [
      for told in jsondecode(output.policies["predictor"]).Statement : told.Resource if contains(told.Action, "s3:PutObject")
    ] == ["arn:aws:s3:::plumbline-test/lake/serving/predictions/*"]
    error_message = "it writes the outcome log and nothing else"
  }
}

run "who_only_reads_encrypts_nothing" {
  assert {
    condition = alltrue([
      for service in ["judge", "exporter"] : !strcontains(output.policies[service], "kms:GenerateDataKey")
    ])
    error_message = "GenerateDataKey is for those who write"
  }
}
