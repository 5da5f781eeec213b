// What siemferry sends to, profile `keeper-solution`. The same as keeper-solution.json, which needs no compiler.

@description('The Log Analytics workspace of Microsoft Sentinel, in the resource group of this deployment.')
param workspaceName string

@description('Whether to make the table: false where the Content Hub solution "Keeper Security" has made it.')
param deployTable bool = true

@description('Days that the table keeps its rows for queries; -1 is the default of the workspace.')
param retentionInDays int = -1

@description('Days that the table keeps its rows at all, the long-term ones included; -1 is as long as for queries.')
param totalRetentionInDays int = -1

@description('The name of the data collection rule.')
@minLength(3)
@maxLength(30)
param ruleName string = 'siemferry-keeper-solution'

@description('The object id of the service principal or managed identity that sends; empty: the role is given elsewhere.')
param principalId string = ''

@description('What `principalId` is.')
@allowed(['ServicePrincipal', 'Group', 'User'])
param principalType string = 'ServicePrincipal'

@description('Whether to make an analytic rule for the first alert; the workspace has to have Microsoft Sentinel.')
param deployAlert bool = true

// Monitoring Metrics Publisher
var publisherRole = '3913510d-42f4-4e42-8a64-420c390055eb'

var functions = [
  {
    name: 'KeeperEvents'
    parameters: ''
    about: 'one row for each Keeper event'
    query: loadTextContent('keeper-solution/KeeperEvents.kql')
  }
  {
    name: 'ASimAuthenticationKeeper'
    parameters: 'disabled:bool=False'
    about: 'ASIM Authentication'
    query: loadTextContent('functions/ASimAuthenticationKeeper.kql')
  }
  {
    name: 'ASimAuditEventKeeper'
    parameters: 'disabled:bool=False'
    about: 'ASIM AuditEvent'
    query: loadTextContent('functions/ASimAuditEventKeeper.kql')
  }
  {
    name: 'ASimUserManagementKeeper'
    parameters: 'disabled:bool=False'
    about: 'ASIM UserManagement'
    query: loadTextContent('functions/ASimUserManagementKeeper.kql')
  }
]

resource workspace 'Microsoft.OperationalInsights/workspaces@2022-10-01' existing = {
  name: workspaceName
}

resource table 'Microsoft.OperationalInsights/workspaces/tables@2022-10-01' = if (deployTable) {
  parent: workspace
  name: 'KeeperSecurityEventNewLogs_CL'
  properties: {
    plan: 'Analytics'
    retentionInDays: retentionInDays
    totalRetentionInDays: totalRetentionInDays
    schema: {
      name: 'KeeperSecurityEventNewLogs_CL'
      columns: [
        { name: 'TimeGenerated', type: 'datetime' }
        { name: 'AuditEvent', type: 'string' }
        { name: 'RemoteAddress', type: 'string' }
        { name: 'Category', type: 'string' }
        { name: 'ClientVersion', type: 'string' }
        { name: 'EnterpriseId', type: 'int' }
        { name: 'Username', type: 'string' }
        { name: 'Timestamp', type: 'datetime' }
        { name: 'Data', type: 'dynamic' }
      ]
    }
  }
}

resource rule 'Microsoft.Insights/dataCollectionRules@2023-03-11' = {
  name: ruleName
  location: workspace.location
  kind: 'Direct'
  properties: {
    description: 'What siemferry sends, profile keeper-solution.'
    streamDeclarations: {
      'Custom-KeeperSecurityEventNewLogs': {
        columns: [
          { name: 'TimeGenerated', type: 'datetime' }
          { name: 'audit_event', type: 'string' }
          { name: 'remote_address', type: 'string' }
          { name: 'category', type: 'string' }
          { name: 'client_version', type: 'string' }
          { name: 'enterprise_id', type: 'int' }
          { name: 'username', type: 'string' }
          { name: 'timestamp', type: 'datetime' }
          { name: 'data', type: 'dynamic' }
        ]
      }
    }
    destinations: {
      logAnalytics: [
        {
          workspaceResourceId: workspace.id
          name: 'workspace'
        }
      ]
    }
    dataFlows: [
      {
        streams: ['Custom-KeeperSecurityEventNewLogs']
        destinations: ['workspace']
        transformKql: 'source | extend TimeGenerated = now() | project-rename AuditEvent = audit_event, RemoteAddress = remote_address, Category = category, ClientVersion = client_version, EnterpriseId = enterprise_id, Username = username, Timestamp = timestamp, Data = data'
        outputStream: 'Custom-KeeperSecurityEventNewLogs_CL'
      }
    ]
  }
  dependsOn: [table]
}

resource publisher 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(principalId)) {
  scope: rule
  name: guid(rule.id, principalId, publisherRole)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', publisherRole)
    principalId: principalId
    principalType: principalType
  }
}

resource savedFunctions 'Microsoft.OperationalInsights/workspaces/savedSearches@2020-08-01' = [
  for function in functions: {
    parent: workspace
    name: 'siemferry-${function.name}'
    // It is there already when this is deployed again.
    etag: '*'
    properties: {
      category: 'siemferry'
      displayName: '${function.name}: ${function.about}'
      functionAlias: function.name
      functionParameters: function.parameters
      query: function.query
      version: 2
    }
    dependsOn: [table]
  }
]

resource alert 'Microsoft.SecurityInsights/alertRules@2023-11-01' = if (deployAlert) {
  scope: workspace
  name: guid(workspace.id, 'siemferry', 'second-factor-off', 'keeper-solution')
  kind: 'Scheduled'
  properties: {
    displayName: 'Keeper: a second factor was turned off'
    description: 'A user, an administrator or Keeper\'s support turned off the second factor of an account.'
    enabled: true
    severity: 'Medium'
    query: loadTextContent('keeper-solution/alert.kql')
    queryFrequency: 'PT1H'
    queryPeriod: 'P3D'
    triggerOperator: 'GreaterThan'
    triggerThreshold: 0
    suppressionEnabled: false
    suppressionDuration: 'PT5H'
    tactics: ['Persistence', 'DefenseEvasion']
    techniques: ['T1556']
    eventGroupingSettings: {
      aggregationKind: 'AlertPerResult'
    }
    incidentConfiguration: {
      createIncident: true
      groupingConfiguration: {
        enabled: true
        reopenClosedIncident: false
        lookbackDuration: 'PT5H'
        matchingMethod: 'AllEntities'
      }
    }
    customDetails: {
      EventType: 'EventType'
      EventTime: 'EventTime'
      EventUid: 'EventUid'
      Backfilled: 'Backfilled'
    }
    entityMappings: [
      {
        entityType: 'Account'
        fieldMappings: [{ identifier: 'FullName', columnName: 'Actor' }]
      }
      {
        entityType: 'IP'
        fieldMappings: [{ identifier: 'Address', columnName: 'SourceIp' }]
      }
    ]
  }
  dependsOn: [table]
}

@description('For `endpoint` of the sink.')
output endpoint string = rule.properties.endpoints.logsIngestion

@description('For `rule` of the sink.')
output rule string = rule.properties.immutableId

@description('For `stream` of the sink.')
output stream string = 'Custom-KeeperSecurityEventNewLogs'
